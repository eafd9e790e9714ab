/*
 * A wall clock that jumps, for one process: compiled by a test and preloaded (LD_PRELOAD).
 *
 * What is added to the clock, in seconds, is the number in the file that JUMPING_CLOCK names: eight bytes, in the
 * machine's order, looked at in each call. The monotonic clock is left alone, as a real jump leaves it alone. Nothing
 * here allocates: an allocator may ask for the time before it can give memory.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

static int64_t added(void) {
  static _Atomic(volatile int64_t *) seconds;
  volatile int64_t *known = seconds;
  if (!known) {
    const char *path = getenv("JUMPING_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    void *mapped = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapped == MAP_FAILED) return 0;
    seconds = known = mapped;
  }
  return *known;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  int failed = (int)syscall(SYS_clock_gettime, clock, now);
  if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += added();
  return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  (void)zone;
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return 0;
}

int timespec_get(struct timespec *now, int base) {
  return clock_gettime(CLOCK_REALTIME, now) == 0 ? base : 0;
}

time_t time(time_t *seconds) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (seconds) *seconds = now.tv_sec;
  return now.tv_sec;
}

/*
 * librdkafka waits for moments of the wall clock. Such a wait ends when the clock that jumps is there, so it is longer
 * when that goes back meanwhile. It is made in short ones of the real clock. (glibc's cnd_t is its pthread_cond_t.)
 */
int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until) {
  const int64_t slice = 20 * 1000 * 1000;
  for (;;) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t left = (until->tv_sec - now.tv_sec) * 1000000000LL + (until->tv_nsec - now.tv_nsec);
    if (left <= 0) return thrd_timedout;
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
    int64_t end = now.tv_nsec + (left < slice ? left : slice);
    struct timespec then = {now.tv_sec + end / 1000000000LL, end % 1000000000LL};
    int waited = pthread_cond_timedwait((pthread_cond_t *)condition, (pthread_mutex_t *)mutex, &then);
    if (waited != ETIMEDOUT) return waited == 0 ? thrd_success : thrd_error;
  }
}
