/* The end of a process by a driver whose device hangs: its exit handler waits for work that is never finished. With the
   variable HUNG_DRIVER_S it takes that many seconds instead, as the handler of a driver that is well may. */

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void last(void) { printf("the handler before the driver ran\n"); }

static void wait_for_the_device(void) {
    const char* seconds = getenv("HUNG_DRIVER_S");
    if (seconds == NULL)
        for (;;) pause();
    usleep((useconds_t)(1e6 * atof(seconds)));
    printf("the driver's handler ended\n");
}

static void first(void) { printf("the handler after the driver ran\n"); }

__attribute__((constructor)) static void load(void) {
    atexit(last);
    atexit(wait_for_the_device);
    atexit(first);
}
