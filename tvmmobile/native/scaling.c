/* From a frame to the network's input: scaled so that its shorter side has IMAGE_SHORTER pixels, the middle cut out, normalised.
 *
 * The same bits as Pillow's bicubic `resize` of the whole image, its crop, and NumPy's arithmetic: coefficients have 22 bits behind the
 * point, rows are scaled first and rounded to 8 bits, and only what the crop needs is computed. Threads divide the rows of the result; each
 * scales the rows of the frame that it needs into a ring, so that memory depends on how much the frame is scaled down, not on its height.
 *
 * The generated file has defined IMAGE_SIDE, IMAGE_SHORTER, image_mean, image_std and `description`. It is compiled without contraction of
 * floating-point expressions.
 */
#include <stdbool.h>

#define POINT 22
#define HALF (1 << (POINT - 1))
#define MOST_LENGTH 32767
#define MOST_RATIO 100
#define PIXELS_MORE 8 /* to begin at an even one and end behind an even number of taps, and for rounding */
#define ROW ((IMAGE_SIDE + 3) / 4 * 16) /* bytes of a scaled row of four channels */
#define BLOCK(size) (((size) + 63) / 64 * 64)

typedef int32_t Quad __attribute__((vector_size(16), may_alias));
typedef int16_t Shorts __attribute__((vector_size(16), may_alias));
typedef uint8_t Bytes __attribute__((vector_size(16), may_alias));
typedef uint64_t Longs __attribute__((vector_size(16), may_alias));
typedef struct Pixel {
  int16_t channels[4]; /* red, green, blue as the frame has them, anything */
} Pixel;

#define LOAD(type, from) ({ type loaded_; __builtin_memcpy(&loaded_, (from), sizeof loaded_); loaded_; })
#define STORE(to, value) ({ __typeof__(value) stored_ = (value); __builtin_memcpy((to), &stored_, sizeof stored_); })
#define SHUFFLED(type, one, other, ...) ((type)__builtin_shufflevector(one, other, __VA_ARGS__))

/* Values that are not negative, wider and narrower: each one instruction, where compilers take __builtin_convertvector apart. */
static Shorts wide_low(Bytes from) { return SHUFFLED(Shorts, from, (Bytes){0}, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23); }
static Shorts wide_high(Bytes from) {
  return SHUFFLED(Shorts, from, (Bytes){0}, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
static Quad quad_low(Shorts from) { return SHUFFLED(Quad, from, (Shorts){0}, 0, 8, 1, 9, 2, 10, 3, 11); }
static Quad quad_high(Shorts from) { return SHUFFLED(Quad, from, (Shorts){0}, 4, 12, 5, 13, 6, 14, 7, 15); }
static Shorts narrow(Quad low, Quad high) { return SHUFFLED(Shorts, (Shorts)low, (Shorts)high, 0, 2, 4, 6, 8, 10, 12, 14); }
static Bytes narrower(Shorts low, Shorts high) {
  return SHUFFLED(Bytes, (Bytes)low, (Bytes)high, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
}

/* Each value to the nearest of 0 to 255. */
static Shorts bounded(Shorts values) {
  values &= ~(values >> 15);
  Shorts above = values > 255;
  return (values & ~above) | (above & 255);
}

/* One side of the frame. Result i has count[i] taps from pixel start[i] on, with coefficients weights[i * taps]. */
typedef struct Axis {
  int32_t length, scaled, offset; /* the frame's, once scaled, and of the crop there */
  int32_t *start, *count, *weights;
} Axis;

/* How one frame is scaled, and where in the workspace. */
typedef struct Scaling {
  tvmmobile_image image; /* strides and planes as used */
  uint32_t step;         /* bytes from one chroma sample to the next */
  int32_t taps;          /* room for coefficients */
  Axis axes[2];          /* across, down */
  float *input;          /* of the network: three planes */
  float *normal;         /* 256 for each channel */
  unsigned char *own;    /* of lane 0 */
  size_t own_bytes;      /* of each lane: pixels of one row of the frame, then `taps` scaled rows */
  size_t pixels_bytes;
} Scaling;

/* At most so many taps for frames with this shorter side; a multiple of 2. */
static int32_t most_taps(int32_t shorter) {
  int32_t least = IMAGE_SHORTER > 1 ? IMAGE_SHORTER - 1 : 1, half = (2 * shorter + least - 1) / least;
  return 2 * (half > 2 ? half : 2) + 2;
}

/* Pixels of a row that the crop needs, at most. */
static size_t most_pixels(int32_t shorter) {
  int32_t least = IMAGE_SHORTER > 1 ? IMAGE_SHORTER - 1 : 1;
  return (size_t)(IMAGE_SIDE * (int64_t)shorter / least) + (size_t)most_taps(shorter) + PIXELS_MORE;
}

static size_t table_bytes(int32_t shorter) { return BLOCK((2 + (size_t)most_taps(shorter)) * IMAGE_SIDE * sizeof(int32_t)); }
static size_t ring_bytes(int32_t shorter) { return BLOCK((size_t)most_taps(shorter) * ROW); }
#define NORMAL_BYTES (3 * 256 * sizeof(float))

/* What is needed beside the network's input, before its first kernel. It grows with the shorter side alone. */
static size_t scaling_bytes(int32_t shorter) {
  return NORMAL_BYTES + 2 * table_bytes(shorter) + description.threads * (BLOCK(most_pixels(shorter) * sizeof(Pixel)) + ring_bytes(shorter));
}

static int32_t shorter_of(uint32_t width, uint32_t height) { return (int32_t)(width < height ? width : height); }

static bool is_size(uint32_t width, uint32_t height) {
  if (!width || !height || width > MOST_LENGTH || height > MOST_LENGTH) return false;
  return (uint64_t)(width > height ? width : height) * IMAGE_SHORTER / (uint32_t)shorter_of(width, height) <= MOST_RATIO * IMAGE_SHORTER;
}

/* How a side is scaled and cropped; its tables are at `memory`. */
static Axis axis_of(uint32_t length, uint32_t shorter, unsigned char *memory) {
  Axis axis = {(int32_t)length, (int32_t)((uint64_t)IMAGE_SHORTER * length / shorter), 0, (int32_t *)memory, 0, 0};
  int32_t margin = axis.scaled - IMAGE_SIDE, half = margin / 2;
  axis.offset = half + (margin % 2 && half % 2); /* half to even */
  axis.count = axis.start + IMAGE_SIDE;
  axis.weights = axis.count + IMAGE_SIDE;
  return axis;
}

/* Check an image and place what it needs in the workspace. */
static int plan_scaling(const tvmmobile_image *image, float *input, unsigned char *workspace, Scaling *scaling) {
  static const uint8_t planes_of[] = {0, 1, 1, 1, 1, 2, 2, 3}, bytes_of[] = {0, 3, 3, 4, 4, 1, 1, 1};
  uint32_t format = image->format;
  if (!format || format > TVMMOBILE_YUV420 || image->turns > 3 || image->reserved) return TVMMOBILE_FORMAT;
  if (image->chroma_step > (format == TVMMOBILE_YUV420 ? 2 : 0)) return TVMMOBILE_FORMAT;
  if (!is_size(image->width, image->height)) return TVMMOBILE_SIZE;
  Scaling plan = {.image = *image, .step = image->chroma_step ? image->chroma_step : 1, .input = input};
  if (format == TVMMOBILE_NV21 || format == TVMMOBILE_NV12) plan.step = 2;
  for (uint32_t i = 0; i < planes_of[format]; ++i) {
    size_t chroma = (image->width + 1) / 2, row = (size_t)image->width * bytes_of[format];
    if (i) row = format == TVMMOBILE_YUV420 ? (chroma - 1) * plan.step + 1 : 2 * chroma;
    if (!image->planes[i]) return TVMMOBILE_NULL;
    if (image->strides[i] && image->strides[i] < row) return TVMMOBILE_STRIDE;
    if (!image->strides[i]) plan.image.strides[i] = i && format == TVMMOBILE_YUV420 ? chroma * plan.step : row;
  }
  if (format == TVMMOBILE_NV21 || format == TVMMOBILE_NV12) { /* as U and V of their own */
    const uint8_t *both = image->planes[1];
    plan.image.planes[1] = both + (format == TVMMOBILE_NV21);
    plan.image.planes[2] = both + (format == TVMMOBILE_NV12);
    plan.image.strides[2] = plan.image.strides[1];
  }
  int32_t shorter = shorter_of(image->width, image->height);
  plan.taps = most_taps(shorter);
  plan.normal = (float *)workspace;
  workspace += NORMAL_BYTES;
  for (uint32_t i = 0; i < 2; ++i, workspace += table_bytes(shorter))
    plan.axes[i] = axis_of(i ? image->height : image->width, (uint32_t)shorter, workspace);
  plan.own = workspace;
  plan.pixels_bytes = BLOCK(most_pixels(shorter) * sizeof(Pixel));
  plan.own_bytes = plan.pixels_bytes + ring_bytes(shorter);
  *scaling = plan;
  return TVMMOBILE_OK;
}

static double bicubic(double x) {
  if (x < 0.0) x = -x;
  if (x < 1.0) return (1.5 * x - 2.5) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * -0.5;
  return 0.0;
}

/* Taps and coefficients of one side of the crop, computed as Pillow computes them; `taps` doubles at `scratch`. */
static void tabulate(const Axis *axis, int32_t taps, double *scratch) {
  double scale = (double)axis->length / axis->scaled, wider = scale < 1.0 ? 1.0 : scale, support = 2.0 * wider, narrower = 1.0 / wider;
  for (int32_t i = 0; i < IMAGE_SIDE; ++i) {
    double center = (axis->offset + i + 0.5) * scale, sum = 0.0;
    int32_t start = (int32_t)(center - support + 0.5), end = (int32_t)(center + support + 0.5), *weights = axis->weights + i * taps;
    if (start < 0) start = 0;
    if (end > axis->length) end = axis->length;
    axis->start[i] = start;
    axis->count[i] = end - start;
    for (int32_t t = 0; t < end - start; ++t) sum += scratch[t] = bicubic((t + start - center + 0.5) * narrower);
    for (int32_t t = 0; t < end - start; ++t) {
      double weight = sum != 0.0 ? scratch[t] / sum : scratch[t];
      weights[t] = (int32_t)(weight * (1 << POINT) + (weight < 0 ? -0.5 : 0.5));
    }
    for (int32_t t = end - start; t < taps; ++t) weights[t] = 0;
  }
}

/* What every value of every channel becomes. */
static void tabulate_normal(float *normal) {
  for (uint32_t channel = 0; channel < 3; ++channel)
    for (uint32_t value = 0; value < 256; ++value)
      normal[256 * channel + value] = ((float)value / 255.0f - image_mean[channel]) / image_std[channel];
}

/* Step: the tables, by up to three threads. */
static void image_tables(const Frame *frame, uint32_t lane, int32_t begin, int32_t end) {
  const Scaling *scaling = frame->scaling;
  for (int32_t i = begin; i < end; ++i)
    if (i < 2)
      tabulate(&scaling->axes[i], scaling->taps, (double *)(scaling->own + lane * scaling->own_bytes));
    else
      tabulate_normal(scaling->normal);
}

static void put_pixel(Pixel *to, int32_t red, int32_t green, int32_t blue) { *to = (Pixel){{(int16_t)red, (int16_t)green, (int16_t)blue, 0}}; }

static int32_t clamped(int32_t value) { return value < 0 ? 0 : value > 255 ? 255 : value; }

/* Pixels of three or four bytes, their channels in the order in which they lie. */
static void read_packed(const uint8_t *from, int32_t bytes, int32_t count, Pixel *to) {
  int32_t i = 0;
  if (bytes == 4)
    for (; i + 4 <= count; i += 4) {
      Bytes four = LOAD(Bytes, from + 4 * i);
      STORE(to + i, wide_low(four));
      STORE(to + i + 2, wide_high(four));
    }
  else
    for (; i + 6 <= count; i += 4) { /* reads 16 bytes of 18 */
      Bytes four = LOAD(Bytes, from + 3 * i), none = {0};
      STORE(to + i, SHUFFLED(Bytes, four, none, 0, 16, 1, 16, 2, 16, 16, 16, 3, 16, 4, 16, 5, 16, 16, 16));
      STORE(to + i + 2, SHUFFLED(Bytes, four, none, 6, 16, 7, 16, 8, 16, 16, 16, 9, 16, 10, 16, 11, 16, 16, 16));
    }
  for (; i < count; ++i) put_pixel(to + i, from[bytes * i], from[bytes * i + 1], from[bytes * i + 2]);
}

/* 16 bits behind the point, as in libjpeg. */
enum { RED_V = 91881, GREEN_U = -22554, GREEN_V = -46802, BLUE_U = 116130, ROUND = 1 << 15 };

/* Four chroma samples less 128; reads four bytes of a step of 1, eight of 2. */
static Quad four_chroma(const uint8_t *from, uint32_t step) {
  Longs whole = {step == 1 ? LOAD(uint32_t, from) : LOAD(uint64_t, from)};
  Shorts samples = (Shorts)whole & 255; /* of a step of 2 */
  if (step == 1) samples = wide_low((Bytes)whole);
  return quad_low(samples) - 128;
}

/* What four chroma samples add to a channel of eight pixels. */
static Shorts doubled(Quad sums) {
  Shorts four = narrow(sums >> 16, sums);
  return SHUFFLED(Shorts, four, four, 0, 0, 1, 1, 2, 2, 3, 3);
}

#define FIRST_OF(one, other) SHUFFLED(Quad, one, other, 0, 8, 1, 9, 2, 10, 3, 11)
#define LAST_OF(one, other) SHUFFLED(Quad, one, other, 4, 12, 5, 13, 6, 14, 7, 15)

/* Four pixels of red and green, and of blue. */
static void put_four(Pixel *to, Quad red_green, Quad blue) {
  STORE(to, SHUFFLED(Quad, red_green, blue, 0, 4, 1, 5));
  STORE(to + 2, SHUFFLED(Quad, red_green, blue, 2, 6, 3, 7));
}

/* Pixels of a row that begins at an even one. */
static void read_yuv(const uint8_t *y, const uint8_t *u, const uint8_t *v, uint32_t step, int32_t count, Pixel *to) {
  int32_t i = 0;
  for (; i + 8 < count; i += 8) { /* another sample follows: eight bytes of chroma can be read */
    Quad du = four_chroma(u + (uint32_t)i / 2 * step, step), dv = four_chroma(v + (uint32_t)i / 2 * step, step);
    Shorts luma = wide_low((Bytes)(Longs){LOAD(uint64_t, y + i)});
    Shorts red = bounded(luma + doubled(RED_V * dv + ROUND)), blue = bounded(luma + doubled(BLUE_U * du + ROUND));
    Shorts green = bounded(luma + doubled(GREEN_U * du + GREEN_V * dv + ROUND));
    put_four(to + i, FIRST_OF(red, green), FIRST_OF(blue, blue));
    put_four(to + i + 4, LAST_OF(red, green), LAST_OF(blue, blue));
  }
  for (; i < count; ++i) {
    int32_t du = u[(uint32_t)i / 2 * step] - 128, dv = v[(uint32_t)i / 2 * step] - 128, luma = y[i];
    int32_t red = (RED_V * dv + ROUND) >> 16, green = (GREEN_U * du + GREEN_V * dv + ROUND) >> 16, blue = (BLUE_U * du + ROUND) >> 16;
    put_pixel(to + i, clamped(luma + red), clamped(luma + green), clamped(luma + blue));
  }
}

/* `count` pixels of a row of the frame, from the even one `first` on. */
static void read_row(const Scaling *scaling, int32_t row, int32_t first, int32_t count, Pixel *to) {
  const tvmmobile_image *image = &scaling->image;
  const uint8_t *from = image->planes[0] + (size_t)row * image->strides[0];
  if (image->format <= TVMMOBILE_BGRA) {
    int32_t bytes = image->format <= TVMMOBILE_BGR ? 3 : 4;
    read_packed(from + bytes * first, bytes, count, to);
  } else {
    size_t u = (size_t)(row / 2) * image->strides[1], v = (size_t)(row / 2) * image->strides[2], across = (size_t)first / 2 * scaling->step;
    read_yuv(from + first, image->planes[1] + u + across, image->planes[2] + v + across, scaling->step, count, to);
  }
}

/* Two or four pixels from sums of products. */
static Shorts two_rounded(Quad one, Quad other) { return bounded(narrow(one >> POINT, other >> POINT)); }
static Bytes four_rounded(const Quad sums[4]) { return narrower(two_rounded(sums[0], sums[1]), two_rounded(sums[2], sums[3])); }

/* A pixel of a scaled row; `count` is rounded up to an even number: the coefficient behind an odd one is 0. */
static Quad sum_across(const Pixel *from, const int32_t *weights, int32_t count) {
  Quad sum = {HALF, HALF, HALF, HALF}, other = {0};
  for (int32_t t = 0; t < count; t += 2) {
    Shorts two = LOAD(Shorts, from + t);
    sum += quad_low(two) * weights[t];
    other += quad_high(two) * weights[t + 1];
  }
  return sum + other;
}

/* Scale a row; pixels[0] is pixel `first` of the frame. The last is repeated where their number is not a multiple of 4. */
static void scale_row(const Axis *axis, int32_t taps, const Pixel *pixels, int32_t first, uint8_t *to) {
  for (int32_t i = 0; i < IMAGE_SIDE; i += 4) {
    Quad sums[4];
    for (int32_t j = 0; j < 4; ++j) {
      int32_t place = i + j < IMAGE_SIDE ? i + j : IMAGE_SIDE - 1;
      sums[j] = sum_across(pixels + axis->start[place] - first, axis->weights + (size_t)place * (size_t)taps, axis->count[place]);
    }
    STORE(to + 4 * i, four_rounded(sums));
  }
}

/* Where the three channels of one row of the result go in the network's input, `step` apart, and what their values become. */
typedef struct Place {
  float *to[3];
  const float *normal[3];
  ptrdiff_t step;
} Place;

static Place place_of(const Scaling *scaling, int32_t row) {
  enum { LAST = IMAGE_SIDE - 1, PLANE = IMAGE_SIDE * IMAGE_SIDE };
  const int32_t first[] = {row * IMAGE_SIDE, LAST - row, (LAST - row) * IMAGE_SIDE + LAST, LAST * IMAGE_SIDE + row};
  const ptrdiff_t steps[] = {1, IMAGE_SIDE, -1, -IMAGE_SIDE};
  uint32_t format = scaling->image.format, turns = scaling->image.turns, backwards = format == TVMMOBILE_BGR || format == TVMMOBILE_BGRA;
  Place place = {.step = steps[turns]};
  for (uint32_t i = 0; i < 3; ++i) {
    uint32_t channel = backwards ? 2 - i : i;
    place.to[i] = scaling->input + channel * PLANE + first[turns];
    place.normal[i] = scaling->normal + 256 * channel;
  }
  return place;
}

/* Write `count` pixels from number `column` on. */
static void put_normal(const Place *place, const uint8_t *values, int32_t column, int32_t count) {
  for (uint32_t channel = 0; channel < 3; ++channel) {
    float *to = place->to[channel] + column * place->step;
    for (int32_t i = 0; i < count; ++i, to += place->step) *to = place->normal[channel][values[4 * i + (int32_t)channel]];
  }
}

/* Add `count` rows of a chunk of 16 values, each times its coefficient. */
static void add_rows(Quad sums[4], const uint8_t *from, const int32_t *weights, int32_t count) {
  for (int32_t t = 0; t < count; ++t, from += ROW) {
    Bytes values = LOAD(Bytes, from);
    Shorts low = wide_low(values), high = wide_high(values);
    sums[0] += quad_low(low) * weights[t];
    sums[1] += quad_high(low) * weights[t];
    sums[2] += quad_low(high) * weights[t];
    sums[3] += quad_high(high) * weights[t];
  }
}

/* A row of the result, from rows of the ring: `count` from number `slot` on, going round. */
static void scale_down(const Scaling *scaling, const uint8_t *ring, int32_t slot, int32_t count, int32_t row) {
  int32_t slots = scaling->taps, unbroken = slot + count > slots ? slots - slot : count;
  const int32_t *weights = scaling->axes[1].weights + (size_t)row * (size_t)slots;
  const Place place = place_of(scaling, row);
  for (int32_t column = 0; column < IMAGE_SIDE; column += 4) {
    uint8_t values[16];
    Quad sums[4];
    for (int32_t i = 0; i < 4; ++i) sums[i] = (Quad){HALF, HALF, HALF, HALF};
    add_rows(sums, ring + (size_t)slot * ROW + 4 * column, weights, unbroken);
    add_rows(sums, ring + 4 * column, weights + unbroken, count - unbroken);
    STORE(values, four_rounded(sums));
    put_normal(&place, values, column, IMAGE_SIDE - column < 4 ? IMAGE_SIDE - column : 4);
  }
}

/* Step: rows `begin` to `end` of the result. */
static void image_rows(const Frame *frame, uint32_t lane, int32_t begin, int32_t end) {
  const Scaling *scaling = frame->scaling;
  const Axis *across = &scaling->axes[0], *down = &scaling->axes[1];
  Pixel *pixels = (Pixel *)(scaling->own + lane * scaling->own_bytes);
  uint8_t *ring = (uint8_t *)pixels + scaling->pixels_bytes;
  int32_t first = across->start[0] & ~1, last = across->start[IMAGE_SIDE - 1] + across->count[IMAGE_SIDE - 1], slots = scaling->taps;
  int32_t next = down->start[begin];
  for (int32_t row = begin; row < end; ++row) {
    int32_t start = down->start[row], count = down->count[row];
    for (; next < start + count; ++next) {
      read_row(scaling, next, first, last - first, pixels);
      scale_row(across, slots, pixels, first, ring + (size_t)(next % slots) * ROW);
    }
    scale_down(scaling, ring, start % slots, count, row);
  }
}

#define IMAGE_STEPS 2u
#define IMAGE_STEP_LIST {image_tables, 3, 0, 1}, {image_rows, IMAGE_SIDE, 0, 1},
