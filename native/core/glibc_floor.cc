// Lets a binary that was linked on a recent Linux run on older ones. Symbols that newer C and C++ libraries
// version anew are defined here, hidden, on top of older versions of the same: then the addon needs no more
// than Node's own releases do (glibc 2.28), and the libstdc++ of GCC 7. `npm run prebuild` refuses a binary
// that needs more.
#if defined(__linux__) && defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#include <features.h>
#ifdef __GLIBC__
#include <pthread.h>

#include <new>

#define MF_HIDDEN __attribute__((visibility("hidden")))

extern "C" {

// libstdc++'s headers read it to leave out atomics (2.32). There are threads: no.
MF_HIDDEN char mfSingleThreaded __asm__("__libc_single_threaded") = 0;

// Version 2.29 differs from 2.2.5 in errno only.
#define MF_OLD_MATH1(name)                                  \
  double mfOld_##name(double);                              \
  __asm__(".symver mfOld_" #name "," #name "@GLIBC_2.2.5"); \
  MF_HIDDEN double mfNew_##name(double) __asm__(#name);     \
  double mfNew_##name(double x) {                           \
    return mfOld_##name(x);                                 \
  }
MF_OLD_MATH1(exp)
MF_OLD_MATH1(exp2)
MF_OLD_MATH1(log)

double mfOld_pow(double, double);
__asm__(".symver mfOld_pow,pow@GLIBC_2.2.5");
MF_HIDDEN double mfNew_pow(double, double) __asm__("pow");
double mfNew_pow(double x, double y) {
  return mfOld_pow(x, y);
}

// 2.34 moved the threads into libc.
int mfOld_trylock(pthread_mutex_t*);
__asm__(".symver mfOld_trylock,pthread_mutex_trylock@GLIBC_2.2.5");
MF_HIDDEN int mfNew_trylock(pthread_mutex_t*) __asm__("pthread_mutex_trylock");
int mfNew_trylock(pthread_mutex_t* mutex) {
  return mfOld_trylock(mutex);
}

// std::exception_ptr's counting, exported since GCC 11: through its copy constructor and destructor, exported
// before.
void mfCopyException(void* self, const void* other) __asm__("_ZNSt15__exception_ptr13exception_ptrC1ERKS0_");
void mfDestroyException(void* self) __asm__("_ZNSt15__exception_ptr13exception_ptrD1Ev");
MF_HIDDEN void mfAddReference(void* self) __asm__("_ZNSt15__exception_ptr13exception_ptr9_M_addrefEv");
MF_HIDDEN void mfRelease(void* self) __asm__("_ZNSt15__exception_ptr13exception_ptr10_M_releaseEv");
void mfAddReference(void* self) {
  void* copy = nullptr;
  mfCopyException(static_cast<void*>(&copy), self);
}
void mfRelease(void* self) {
  mfDestroyException(self);
}

// GCC 11.
[[noreturn]] MF_HIDDEN void mfThrowBadArrayNewLength() __asm__("_ZSt28__throw_bad_array_new_lengthv");
void mfThrowBadArrayNewLength() {
  throw std::bad_array_new_length();
}

}  // extern "C"
#endif
#endif
