// As native/core/glibc_floor.cc, for what the CUDA runtime takes from the C library: glibc 2.34 moved these
// functions into libc and gave them a new version, which older ones lack. Each is defined here, hidden, as a
// jump to the same function under its first version. Linked through the PLT, so that what is never called
// (shm_open) need not exist.
#if defined(__linux__) && defined(__x86_64__)
#include <features.h>
#ifdef __GLIBC__

__asm__(R"(
.text
.macro old name version
.symver mfOld_\name, \name@GLIBC_\version
.globl \name
.hidden \name
.type \name, @function
\name:
  jmp mfOld_\name@PLT
.size \name, .-\name
.endm

.irp name, dlopen, dlclose, dlsym, dlvsym, dlerror, shm_open, shm_unlink
old \name 2.2.5
.endr
old dlmopen 2.3.4
.irp name, create, detach, join, once, kill, key_create, key_delete, getspecific, setspecific
old pthread_\name 2.2.5
.endr
.irp name, mutexattr_init, mutexattr_destroy, mutexattr_settype, mutexattr_setpshared, condattr_setpshared
old pthread_\name 2.2.5
.endr
.irp name, init, destroy, lock, trylock, unlock
old pthread_spin_\name 2.2.5
.endr
.irp name, init, destroy, rdlock, wrlock, tryrdlock, trywrlock, timedrdlock, timedwrlock, unlock
old pthread_rwlock_\name 2.2.5
.endr
.irp name, init, destroy, setpshared
old pthread_rwlockattr_\name 2.2.5
.endr
.irp name, init, destroy, wait, trywait, timedwait, post
old sem_\name 2.2.5
.endr
)");

#endif
#endif
