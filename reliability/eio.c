/* Makes one write or sync of a regular file fail with EIO, as a failing disk does, whichever library calls it.

   cc -shared -fPIC -o eio.so eio.c -ldl, then LD_PRELOAD=eio.so. Nothing fails before eio_arm(n): then the n-th call, counted from 0.
   Standard output and error are left alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long left = -1; /* calls before the one that fails; negative: none fails */

void eio_arm(long calls) { atomic_store(&left, calls); }
long eio_left(void) { return atomic_load(&left); }

static int fails(int file) {
    struct stat status;
    if (atomic_load(&left) < 0 || file <= 2 || fstat(file, &status) || !S_ISREG(status.st_mode) || atomic_fetch_sub(&left, 1)) return 0;
    errno = EIO;
    return 1;
}

#define WRAP(type, name, parameters, arguments)                     \
    type name parameters {                                          \
        static type (*next) parameters;                             \
        if (fails(file)) return -1;                                 \
        if (!next) next = (type(*) parameters)dlsym(RTLD_NEXT, #name); \
        return next arguments;                                      \
    }

WRAP(ssize_t, write, (int file, const void *data, size_t size), (file, data, size))
WRAP(ssize_t, writev, (int file, const struct iovec *parts, int count), (file, parts, count))
WRAP(ssize_t, pwrite, (int file, const void *data, size_t size, off_t place), (file, data, size, place))
WRAP(ssize_t, pwrite64, (int file, const void *data, size_t size, off64_t place), (file, data, size, place))
WRAP(ssize_t, pwritev, (int file, const struct iovec *parts, int count, off_t place), (file, parts, count, place))
WRAP(int, fsync, (int file), (file))
WRAP(int, fdatasync, (int file), (file))
WRAP(int, ftruncate, (int file, off_t size), (file, size))
WRAP(int, ftruncate64, (int file, off64_t size), (file, size))
