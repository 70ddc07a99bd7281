/* Weights that the file holds in fewer bits than the kernels read: `init` makes them, in memory that it maps for the instance. They have the
 * same bits as those that schedules/emit/expansion.py makes. */
#define LANES_OF_WEIGHTS 4
typedef float Four __attribute__((vector_size(LANES_OF_WEIGHTS * sizeof(float)), aligned(sizeof(float))));

#if defined(__linux__)
#if defined(__aarch64__)
static unsigned long map_anonymous(size_t bytes) {
  register long number __asm__("x8") = 222; /* mmap */
  register unsigned long found __asm__("x0") = 0;
  register size_t length __asm__("x1") = bytes;
  register long protection __asm__("x2") = 3, flags __asm__("x3") = 0x22, file __asm__("x4") = -1, offset __asm__("x5") = 0;
  __asm__ volatile("svc 0" : "+r"(found) : "r"(number), "r"(length), "r"(protection), "r"(flags), "r"(file), "r"(offset) : "memory");
  return found;
}
enum { SYS_munmap = 215, SYS_mprotect = 226 };
#else
static unsigned long map_anonymous(size_t bytes) { return (unsigned long)syscall(SYS_mmap, 0L, bytes, 3L, 0x22L, -1L, 0L); }
#endif

/* Memory of zeros; null if there is none. */
static unsigned char *mapped(size_t bytes) {
  unsigned long found = map_anonymous(bytes);
  return found >= -4095ul ? 0 : (unsigned char *)found; /* an error's code, negated */
}

static void make_read_only(unsigned char *memory, size_t bytes) { system_call(SYS_mprotect, (long)memory, (long)bytes, 1L, 0L); }

static void unmap(unsigned char *memory, size_t bytes) { system_call(SYS_munmap, (long)memory, (long)bytes, 0L, 0L); }
#else
static unsigned char *mapped(size_t bytes) { return (void)bytes, (unsigned char *)0; }
static void make_read_only(unsigned char *memory, size_t bytes) { (void)memory, (void)bytes; }
static void unmap(unsigned char *memory, size_t bytes) { (void)memory, (void)bytes; }
#endif

/* A half-precision number by its bits; it is finite. */
static float half_of(uint16_t bits) {
  uint32_t exponent = bits >> 10 & 31, digits = (bits & 1023u) | (exponent ? 1024u : 0), power = (exponent ? exponent : 1) - 25 + 127;
  union {
    uint32_t bits;
    float value;
  } scale = {power << 23};
  float magnitude = (float)digits * scale.value;
  return bits >> 15 ? -magnitude : magnitude;
}

/* Four numbers of neighbouring channels from `channel` on; zeros behind the last one. */
static Four stored_at(const Expansion *self, uint32_t tap, uint32_t k, uint32_t channel) {
  size_t place = ((size_t)tap * self->depth + k) * self->channels + channel;
  uint32_t count = less(self->channels - channel, LANES_OF_WEIGHTS);
  Four found = {0};
  if (!self->scales) {
    for (uint32_t i = 0; i < count; ++i) found[i] = half_of(((const uint16_t *)(weights + self->stored))[place + i]);
  } else if (count == LANES_OF_WEIGHTS) {
    const signed char *bytes = (const signed char *)weights + self->stored + place;
    found = (Four){bytes[0], bytes[1], bytes[2], bytes[3]};
  } else {
    for (uint32_t i = 0; i < count; ++i) found[i] = (signed char)weights[self->stored + place + i];
  }
  return found;
}

static Four scales_at(const Expansion *self, uint32_t channel) {
  uint32_t count = less(self->channels - channel, LANES_OF_WEIGHTS);
  Four found = {1, 1, 1, 1};
  for (uint32_t i = 0; self->scales && i < count; ++i) found[i] = ((const float *)(weights + self->scales - 1))[channel + i];
  return found;
}

/* Sum of three products, in this order. */
static Four combined(const float *row, Four first, Four second, Four third) { return first * row[0] + second * row[1] + third * row[2]; }

/* Transforms the weights of four channels, and stores each value `pitch` numbers behind the one before. */
static void transform_weights(const Expansion *self, uint32_t k, uint32_t channel, float *to, size_t pitch) {
  Four top[3], middle[3], bottom[3], scales = scales_at(self, channel);
  for (uint32_t x = 0; x < 3; ++x) {
    top[x] = stored_at(self, x, k, channel);
    middle[x] = stored_at(self, 3 + x, k, channel);
    bottom[x] = stored_at(self, 6 + x, k, channel);
  }
  const float *factor = self->factors;
  for (const float *row = self->rows, *end = row + 3 * self->values; row < end; row += 3) {
    Four left = combined(row, top[0], middle[0], bottom[0]);
    Four centre = combined(row, top[1], middle[1], bottom[1]);
    Four right = combined(row, top[2], middle[2], bottom[2]);
    for (const float *column = self->rows; column < end; column += 3, to += pitch)
      *(Four *)to = combined(column, left, centre, right) * (scales * *factor++);
  }
}

/* [part][value][group of panels][K block][panel][K][column] */
static void expand_transformed(const Expansion *self, float *to) {
  uint32_t channels = self->channels / self->parts, whole = channels / self->width;
  size_t pitch = (size_t)self->depth * channels, values = (size_t)self->values * self->values;
  for (uint32_t part = 0; part < self->parts; ++part, to += (values - 1) * pitch)
    for (uint32_t first = 0, end; first < channels; first = end) {
      bool wide = !first && whole;
      uint32_t width = wide ? self->width : channels - first;
      end = wide ? whole * self->width : channels;
      for (uint32_t start = 0; start < self->depth; start += self->k_block)
        for (uint32_t panel = first; panel < end; panel += width)
          for (uint32_t k = start; k < start + less(self->k_block, self->depth - start); ++k)
            for (uint32_t column = 0; column < width; column += LANES_OF_WEIGHTS, to += LANES_OF_WEIGHTS)
              transform_weights(self, k, part * channels + panel + column, to, pitch);
    }
}

/* [panel][K block][tap][K][column]; the last panel may be narrower. */
static void expand_taps(const Expansion *self, float *to) {
  for (uint32_t panel = 0; panel < self->channels; panel += self->width)
    for (uint32_t start = 0; start < self->depth; start += self->k_block)
      for (uint32_t tap = 0; tap < self->taps; ++tap)
        for (uint32_t k = start; k < start + less(self->k_block, self->depth - start); ++k)
          for (uint32_t column = 0; column < less(self->width, self->channels - panel); column += LANES_OF_WEIGHTS, to += LANES_OF_WEIGHTS)
            *(Four *)to = stored_at(self, tap, k, panel + column) * scales_at(self, panel + column);
}

/* Makes an instance's weights; returns whether there is memory. */
static bool make_weights(Instance *self) {
  size_t count = expansion_count(self);
  if (!count) return true;
  self->expanded = mapped(EXPANDED_BYTES);
  if (!self->expanded) return false;
  uint64_t mode = float_mode();
  take_float_mode(DEFAULT_FLOAT_MODE);
  for (const Expansion *each = expansions_of(self); each < expansions_of(self) + count; ++each)
    (each->values ? expand_transformed : expand_taps)(each, (float *)(self->expanded + each->place));
  take_float_mode(mode);
  make_read_only(self->expanded, EXPANDED_BYTES);
  return true;
}
