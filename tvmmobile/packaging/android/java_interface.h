/* What glue.c calls of Java: the places of functions in the table of the Java Native Interface, as its specification numbers them.
 * So nobody needs a jni.h to make a package. */
#ifndef JAVA_INTERFACE_H
#define JAVA_INTERFACE_H

#include <stdint.h>

typedef void *const *const *Java; /* JNIEnv * */
typedef void *Object;             /* jobject, jclass, jstring */

enum { FIND_CLASS = 6, THROW_NEW = 14, NEW_STRING = 167, NEW_DIRECT_BUFFER = 229, BUFFER_ADDRESS = 230 };

static inline Object find_class(Java java, const char *name) {
  return ((Object(*)(Java, const char *))(uintptr_t)(*java)[FIND_CLASS])(java, name);
}

static inline void throw_new(Java java, Object type, const char *message) {
  ((int32_t(*)(Java, Object, const char *))(uintptr_t)(*java)[THROW_NEW])(java, type, message);
}

/* In UTF-8 without characters beyond U+FFFF. */
static inline Object new_string(Java java, const char *text) {
  return ((Object(*)(Java, const char *))(uintptr_t)(*java)[NEW_STRING])(java, text);
}

static inline Object new_direct_buffer(Java java, void *memory, int64_t bytes) {
  return ((Object(*)(Java, void *, int64_t))(uintptr_t)(*java)[NEW_DIRECT_BUFFER])(java, memory, bytes);
}

/* Null for a null buffer too. */
static inline void *buffer_address(Java java, Object buffer) {
  return buffer ? ((void *(*)(Java, Object))(uintptr_t)(*java)[BUFFER_ADDRESS])(java, buffer) : 0;
}

#endif
