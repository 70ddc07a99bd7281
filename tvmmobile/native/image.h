/* Shared by all networks that take images. */
#ifndef TVMMOBILE_IMAGES
#define TVMMOBILE_IMAGES

enum tvmmobile_image_error {
  TVMMOBILE_FORMAT = 9,  /* the image's format, turns or chroma_step is unknown, or reserved is not 0 */
  TVMMOBILE_SIZE = 10,   /* no side may be 0, above 32767, or a hundred times as long as the other */
  TVMMOBILE_STRIDE = 11, /* a stride is smaller than a row */
  TVMMOBILE_VALUES = 12  /* a score is not finite, or there are fewer scores than classes asked for */
};

/* 8 bits a channel. Chroma has half the width and height, rounded up, and BT.601's full range, as in JPEG and Android's camera frames. */
enum tvmmobile_image_format {
  TVMMOBILE_RGB = 1,
  TVMMOBILE_BGR = 2,
  TVMMOBILE_RGBA = 3, /* alpha is ignored */
  TVMMOBILE_BGRA = 4,
  TVMMOBILE_NV21 = 5, /* planes: Y; V and U in turn */
  TVMMOBILE_NV12 = 6, /* planes: Y; U and V in turn */
  TVMMOBILE_YUV420 = 7 /* planes: Y, U, V */
};

/* The caller's image. It is only read and needs no alignment. */
typedef struct tvmmobile_image {
  uint32_t format;
  uint32_t width, height; /* pixels */
  uint32_t turns;         /* quarter turns clockwise that set it upright: 0 to 3 */
  const uint8_t *planes[3];
  size_t strides[3];    /* of each plane, bytes from row to row; 0: rows without gaps */
  uint32_t chroma_step; /* only for YUV420: bytes from one U or V to the next, 1 or 2; 0 means 1. Android calls it pixelStride */
  uint32_t reserved;    /* 0 */
} tvmmobile_image;

typedef struct tvmmobile_class {
  uint32_t index;
  float score;       /* the network's */
  float probability; /* after softmax */
} tvmmobile_class;

#endif
