/* From a frame to the network's input: scaled so that its shorter side has IMAGE_SHORTER pixels, the middle cut out, normalised.
 *
 * The same bits as Pillow's `resize((width, HEIGHT), BICUBIC)` and then `resize((width, height), BICUBIC)` of an RGB image HEIGHT pixels
 * high, without `reducing_gap`, `draft` or `reduce`, its `crop`, and NumPy's arithmetic. (One call may scale columns first.) Coefficients
 * have 22 bits behind the point, rows are scaled first and rounded to 8 bits, and only what the crop needs is computed. Threads divide the
 * rows of the result; each scales the rows of the frame that it needs into a ring, so that memory depends on how much the frame is scaled
 * down, not on its height.
 *
 * The generated file has defined IMAGE_SIDE, IMAGE_SHORTER, image_mean, image_std and `description`. It is compiled without contraction of
 * floating-point expressions.
 */
#if defined(__aarch64__)
#include <arm_neon.h>
#endif
#include <stdbool.h>

#define POINT 22
#define HALF (1 << (POINT - 1))
#define MOST_LENGTH 32767
#define MOST_RATIO 100
#define PIXELS_MORE 8 /* to begin at an even one, for rounding, and for taps up to a multiple of 4 */
#define ROW ((IMAGE_SIDE + 3) / 4 * 16) /* bytes of a scaled row of four channels */
#define BLOCK(size) (((size) + 63) / 64 * 64)

typedef int32_t Quad __attribute__((vector_size(16), may_alias));
typedef int16_t Shorts __attribute__((vector_size(16), may_alias));
typedef uint8_t Bytes __attribute__((vector_size(16), may_alias));
typedef uint64_t Longs __attribute__((vector_size(16), may_alias));
typedef Quad Pixel; /* red, green and blue in the frame's order, anything */

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

/* The first eight bytes: each value to the nearest of 0 to 255. */
static Bytes saturated(Shorts values) {
#if defined(__aarch64__)
  return (Bytes)vcombine_u8(vqmovun_s16((int16x8_t)values), vdup_n_u8(0));
#else
  values &= ~(values >> 15);
  Shorts above = values > 255;
  values = (values & ~above) | (above & 255);
  return SHUFFLED(Bytes, (Bytes)values, (Bytes){0}, 0, 2, 4, 6, 8, 10, 12, 14, 16, 16, 16, 16, 16, 16, 16, 16);
#endif
}

/* What chroma adds to the channels of eight pixels; two rows of the frame share it. */
typedef struct Chroma {
  int16_t red[8], green[8], blue[8];
} Chroma;

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
  size_t own_bytes;      /* of each lane: pixels of one row of the frame, its chroma, then `taps` scaled rows */
  size_t pixels_bytes, chroma_bytes;
} Scaling;

/* At most so many taps for frames with this shorter side, rounded up to a multiple of 4. A longer side is scaled by up to
 * shorter / (IMAGE_SHORTER - 1); to one pixel, by 5/4 of `shorter` where the taps do not end with the frame before. */
static int32_t most_taps(int32_t shorter) {
  int32_t least = IMAGE_SHORTER > 1 ? IMAGE_SHORTER - 1 : 1, half = (2 * shorter + least - 1) / least;
  if (IMAGE_SHORTER == 1) half = (5 * shorter + 1) / 2;
  return (2 * (half > 2 ? half : 2) + 4) / 4 * 4;
}

/* Pixels of a row that the crop needs, at most. */
static size_t most_pixels(int32_t shorter) {
  int32_t least = IMAGE_SHORTER > 1 ? IMAGE_SHORTER - 1 : 1;
  return (size_t)(IMAGE_SIDE * (int64_t)shorter / least) + (size_t)most_taps(shorter) + PIXELS_MORE;
}

static size_t table_bytes(int32_t shorter) { return BLOCK((2 + (size_t)most_taps(shorter)) * IMAGE_SIDE * sizeof(int32_t)); }
static size_t pixels_bytes(int32_t shorter) { return BLOCK(most_pixels(shorter) * sizeof(Pixel)); }
static size_t chroma_bytes(int32_t shorter) { return BLOCK((most_pixels(shorter) / 8 + 1) * sizeof(Chroma)); }
static size_t ring_bytes(int32_t shorter) { return BLOCK((size_t)most_taps(shorter) * ROW); }
static size_t own_bytes(int32_t shorter) { return pixels_bytes(shorter) + chroma_bytes(shorter) + ring_bytes(shorter); }
#define NORMAL_BYTES (3 * 256 * sizeof(float))

/* What is needed beside the network's input, before its first kernel. It grows with the shorter side alone. */
static size_t scaling_bytes(int32_t shorter) {
  return NORMAL_BYTES + 2 * table_bytes(shorter) + description.threads * own_bytes(shorter);
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
  plan.pixels_bytes = pixels_bytes(shorter);
  plan.chroma_bytes = chroma_bytes(shorter);
  plan.own_bytes = own_bytes(shorter);
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

static void put_two(Pixel *to, Shorts two) { to[0] = quad_low(two), to[1] = quad_high(two); }
static void put_four(Pixel *to, Bytes four) { put_two(to, wide_low(four)), put_two(to + 2, wide_high(four)); }

static int32_t clamped(int32_t value) { return value < 0 ? 0 : value > 255 ? 255 : value; }

/* Pixels of three or four bytes, their channels in the order in which they lie. */
static void read_packed(const uint8_t *from, int32_t bytes, int32_t count, Pixel *to) {
  int32_t i = 0;
  if (bytes == 4)
    for (; i + 4 <= count; i += 4) put_four(to + i, LOAD(Bytes, from + 4 * i));
  else
    for (; i + 6 <= count; i += 4) { /* reads 16 bytes of 18 */
      Bytes four = LOAD(Bytes, from + 3 * i), none = {0};
      put_two(to + i, SHUFFLED(Shorts, four, none, 0, 16, 1, 16, 2, 16, 16, 16, 3, 16, 4, 16, 5, 16, 16, 16));
      put_two(to + i + 2, SHUFFLED(Shorts, four, none, 6, 16, 7, 16, 8, 16, 16, 16, 9, 16, 10, 16, 11, 16, 16, 16));
    }
  for (; i < count; ++i) to[i] = (Pixel){from[bytes * i], from[bytes * i + 1], from[bytes * i + 2], 0};
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

/* For `count` pixels. */
static void read_chroma(const uint8_t *u, const uint8_t *v, uint32_t step, int32_t count, Chroma *to) {
  int32_t i = 0;
  for (; i + 8 < count; i += 8, ++to, u += 4 * step, v += 4 * step) { /* another sample follows: eight bytes can be read */
    Quad du = four_chroma(u, step), dv = four_chroma(v, step);
    STORE(to->red, doubled(RED_V * dv + ROUND));
    STORE(to->green, doubled(GREEN_U * du + GREEN_V * dv + ROUND));
    STORE(to->blue, doubled(BLUE_U * du + ROUND));
  }
  for (int32_t j = 0; i + j < count; ++j) {
    int32_t du = u[(uint32_t)j / 2 * step] - 128, dv = v[(uint32_t)j / 2 * step] - 128;
    to->red[j] = (int16_t)((RED_V * dv + ROUND) >> 16);
    to->green[j] = (int16_t)((GREEN_U * du + GREEN_V * dv + ROUND) >> 16);
    to->blue[j] = (int16_t)((BLUE_U * du + ROUND) >> 16);
  }
}

/* Pixels from their luma and chroma. */
static void read_luma(const uint8_t *y, const Chroma *chroma, int32_t count, Pixel *to) {
  int32_t i = 0;
  for (; i + 8 <= count; i += 8, ++chroma) {
    Shorts luma = wide_low((Bytes)(Longs){LOAD(uint64_t, y + i)});
    Bytes red = saturated(luma + LOAD(Shorts, chroma->red)), green = saturated(luma + LOAD(Shorts, chroma->green));
    Shorts red_green = SHUFFLED(Shorts, red, green, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    Shorts blue = wide_low(saturated(luma + LOAD(Shorts, chroma->blue)));
    put_four(to + i, SHUFFLED(Bytes, red_green, blue, 0, 8, 1, 9, 2, 10, 3, 11));
    put_four(to + i + 4, SHUFFLED(Bytes, red_green, blue, 4, 12, 5, 13, 6, 14, 7, 15));
  }
  for (int32_t j = 0; i + j < count; ++j) {
    int32_t luma = y[i + j];
    to[i + j] = (Pixel){clamped(luma + chroma->red[j]), clamped(luma + chroma->green[j]), clamped(luma + chroma->blue[j]), 0};
  }
}

/* A lane's part of the frame: pixels of a row, from the even one `first` on, and the chroma of row `chroma_row` of its planes. */
typedef struct Reader {
  Pixel *pixels;
  Chroma *chroma;
  int32_t first, count, chroma_row;
} Reader;

static void read_row(const Scaling *scaling, int32_t row, Reader *reader) {
  const tvmmobile_image *image = &scaling->image;
  const uint8_t *from = image->planes[0] + (size_t)row * image->strides[0];
  int32_t first = reader->first, bytes = image->format <= TVMMOBILE_BGR ? 3 : 4;
  if (image->format <= TVMMOBILE_BGRA) {
    read_packed(from + bytes * first, bytes, reader->count, reader->pixels);
    return;
  }
  if (reader->chroma_row != row / 2) {
    size_t across = (size_t)first / 2 * scaling->step, down = (size_t)(row / 2);
    const uint8_t *u = image->planes[1] + down * image->strides[1] + across, *v = image->planes[2] + down * image->strides[2] + across;
    read_chroma(u, v, scaling->step, reader->count, reader->chroma);
    reader->chroma_row = row / 2;
  }
  read_luma(from + first, reader->chroma, reader->count, reader->pixels);
}

/* Two or four pixels from sums of products. */
static Bytes two_rounded(Quad one, Quad other) { return saturated(narrow(one >> POINT, other >> POINT)); }
static Bytes four_rounded(const Quad sums[4]) {
  return (Bytes)(Longs){((Longs)two_rounded(sums[0], sums[1]))[0], ((Longs)two_rounded(sums[2], sums[3]))[0]};
}

/* A pixel of a scaled row; coefficients behind `count` are 0, up to a multiple of 4. */
static Quad sum_across(const Pixel *from, const int32_t *weights, int32_t count) {
  Quad sum = {HALF, HALF, HALF, HALF}, other = {0};
  for (int32_t t = 0; t < count; t += 4) {
    sum += from[t] * weights[t];
    other += from[t + 1] * weights[t + 1];
    sum += from[t + 2] * weights[t + 2];
    other += from[t + 3] * weights[t + 3];
  }
  return sum + other;
}

/* Scale a row; pixels[0] is pixel `first` of the frame. The last is repeated where their number is not a multiple of 4. */
__attribute__((noinline)) static void scale_row(const Axis *axis, int32_t taps, const Pixel *pixels, int32_t first, uint8_t *to) {
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
  Quad a = sums[0], b = sums[1], c = sums[2], d = sums[3];
  for (int32_t t = 0; t < count; ++t, from += ROW) {
    Bytes values = LOAD(Bytes, from);
    Shorts low = wide_low(values), high = wide_high(values);
    a += quad_low(low) * weights[t];
    b += quad_high(low) * weights[t];
    c += quad_low(high) * weights[t];
    d += quad_high(high) * weights[t];
  }
  sums[0] = a, sums[1] = b, sums[2] = c, sums[3] = d;
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
  unsigned char *own = scaling->own + lane * scaling->own_bytes;
  uint8_t *ring = own + scaling->pixels_bytes + scaling->chroma_bytes;
  int32_t first = across->start[0] & ~1, last = across->start[IMAGE_SIDE - 1] + across->count[IMAGE_SIDE - 1], slots = scaling->taps;
  Reader reader = {(Pixel *)own, (Chroma *)(own + scaling->pixels_bytes), first, last - first, -1};
  int32_t next = down->start[begin];
  for (int32_t row = begin; row < end; ++row) {
    int32_t start = down->start[row], count = down->count[row];
    for (; next < start + count; ++next) {
      read_row(scaling, next, &reader);
      scale_row(across, slots, reader.pixels, first, ring + (size_t)(next % slots) * ROW);
    }
    scale_down(scaling, ring, start % slots, count, row);
  }
}

#define IMAGE_STEPS 2u
#define IMAGE_STEP_LIST {image_tables, 3, 0, 1, 0}, {image_rows, IMAGE_SIDE, 0, 1, 0},
#define IMAGE_KERNEL "image", /* the first of the kernels */
