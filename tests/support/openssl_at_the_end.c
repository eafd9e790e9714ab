/*
 * Says at the end of a process whether OpenSSL can be used still: compiled by a test and preloaded (LD_PRELOAD). What is
 * loaded first is ended last, after all that exit() calls; other threads go on until then.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>

__attribute__((destructor)) static void say(void)
{
    int (*init)(uint64_t, const void *) = (int (*)(uint64_t, const void *))dlsym(RTLD_DEFAULT, "OPENSSL_init_crypto");
    fprintf(stderr, "OpenSSL at the end: %s\n", init == NULL ? "not there" : init(0, NULL) ? "usable" : "gone");
}
