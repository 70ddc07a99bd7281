/* What a library offers that takes images: `run` with a frame for an input, and the most likely classes. Included behind runtime.c. */

/* The network's input comes first in the workspace; what scaling needs lies where the network's tensors will. */
#define INPUT_BYTES BLOCK((size_t)3 * IMAGE_SIDE * IMAGE_SIDE * sizeof(float))

PUBLIC size_t MODEL(image_workspace)(uint32_t width, uint32_t height) {
  if (!is_size(width, height)) return 0;
  size_t scaling = scaling_bytes(shorter_of(width, height));
  return INPUT_BYTES + (scaling > description.workspace_bytes ? scaling : description.workspace_bytes);
}

PUBLIC int MODEL(run_image)(tvmmobile_instance *memory, const tvmmobile_image *image, void *const *outputs, void *workspace, size_t bytes,
                            uint32_t threads) {
  Instance *self;
  Scaling scaling;
  int code = find(memory, &self);
  if (code) return code;
  if (!image || !workspace) return TVMMOBILE_NULL;
  unsigned char *behind = (unsigned char *)workspace + INPUT_BYTES;
  code = plan_scaling(image, workspace, behind, &scaling);
  if (!code) code = check(outputs, workspace, bytes, MODEL(image_workspace)(image->width, image->height));
  if (code) return code;
  const void *inputs[] = {workspace};
  Frame frame = {.inputs = inputs, .outputs = outputs, .workspace = behind, .scaling = &scaling};
  return perform(self, &frame, threads);
}

/* e to the power of x, which is not positive. */
static double exponential(double x) {
  if (x < -700.0) return 0.0;
  int64_t twos = (int64_t)(x * 1.4426950408889634 - 0.5); /* towards 0 */
  double rest = x - (double)twos * 0.6931471805599453, sum = 1.0, power;
  for (int32_t i = 14; i; --i) sum = 1.0 + sum * rest / i;
  uint64_t bits = (uint64_t)(1023 + twos) << 52;
  __builtin_memcpy(&power, &bits, sizeof power);
  return sum * power;
}

PUBLIC int MODEL(top)(const float *scores, uint32_t count, tvmmobile_class *classes, uint32_t wanted) {
  if (!scores || !classes) return TVMMOBILE_NULL;
  if (wanted > count) return TVMMOBILE_VALUES;
  for (uint32_t i = 0; i < count; ++i)
    if (scores[i] - scores[i] != 0.0f) return TVMMOBILE_VALUES;
  for (uint32_t i = 0, held = 0; i < count; ++i) {
    if (held == wanted && (!wanted || scores[i] <= classes[wanted - 1].score)) continue;
    uint32_t place = held < wanted ? held++ : wanted - 1;
    for (; place && classes[place - 1].score < scores[i]; --place) classes[place] = classes[place - 1];
    classes[place] = (tvmmobile_class){i, scores[i], 0.0f};
  }
  double sum = 0.0, greatest = wanted ? classes[0].score : 0.0;
  for (uint32_t i = 0; wanted && i < count; ++i) sum += exponential(scores[i] - greatest);
  for (uint32_t i = 0; i < wanted; ++i) classes[i].probability = (float)(exponential(classes[i].score - greatest) / sum);
  return TVMMOBILE_OK;
}

static const char *image_message(int code) {
  switch (code) {
    case TVMMOBILE_FORMAT: return "the image's format, turns or chroma_step is unknown, or its reserved field is not 0";
    case TVMMOBILE_SIZE: return "the image's width or height is 0, above 32767, or a hundred times the other";
    case TVMMOBILE_STRIDE: return "a stride of the image is smaller than a row of its plane";
    case TVMMOBILE_VALUES: return "a score is not finite, or there are fewer scores than classes asked for";
    default: return "unknown error code";
  }
}
