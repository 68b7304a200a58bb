/* libcuda for a machine without a GPU: "device" memory is the host's, copies are done at once or recorded in a capture.
 *
 * Loaded before the real PyCUDA or cuda-bindings (LD_PRELOAD), it shows that the run time uses them as they are:
 * arguments, context stack, destructors. It shows nothing of a driver or a GPU. Every symbol that PyCUDA needs and that
 * is not here must be added as `int NAME(void) { return 801; }` (not supported) by whoever compiles this.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201, NOT_READY = 600 };

typedef void (*Callback)(void *);
typedef struct Work { int kind; void *to; const void *from; size_t size, to_pitch, from_pitch, rows; Callback call; void *data; } Work;
typedef struct Stream { int capturing; double busy_until; size_t count; Work works[256]; } Stream;
typedef struct HostBlock { char *begin; size_t size; } HostBlock;

enum { HOST_BLOCKS = 256 };

static __thread void *stack[64];
static __thread int depth;
static size_t used_bytes, limit_bytes = 1u << 30;
static int live_device, live_host, live_streams, live_events, primary_retained;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char context;
static uint64_t foreign;
static HostBlock host_blocks[HOST_BLOCKS];
static double busy_seconds;
static int idle;

#define NEEDS_CONTEXT if (depth == 0) return INVALID_CONTEXT

static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + 1e-9 * t.tv_nsec; }
static void do_work(const Work *w) {
    if (w->kind == 2) { w->call(w->data); return; }
    for (size_t row = 0; row < w->rows; row++)
        memcpy((char *)w->to + row * w->to_pitch, (const char *)w->from + row * w->from_pitch, w->size);
}
static int put(Stream *s, Work w) {
    NEEDS_CONTEXT;
    if (s && s->capturing) { if (s->count == 256) return INVALID_VALUE; s->works[s->count++] = w; }
    else do_work(&w);
    return OK;
}

int cuInit(unsigned flags) { return OK; }
int cuDriverGetVersion(int *v) { *v = 13000; return OK; }
int cuGetErrorString(int e, const char **s) { *s = e == OUT_OF_MEMORY ? "out of memory" : e == INVALID_CONTEXT ? "invalid device context" : "simulated error"; return OK; }
int cuDeviceGetCount(int *n) { *n = 1; return OK; }
int cuDeviceGet(int *d, int i) { *d = i; return OK; }
int cuDeviceGetName(char *name, int size, int d) { strncpy(name, "Simulated", size); return OK; }
int cuDeviceComputeCapability(int *major, int *minor, int d) { *major = 8; *minor = 7; return OK; }
int cuDeviceGetAttribute(int *value, int attribute, int d) { *value = attribute == 75 ? 8 : attribute == 76 ? 7 : 0; return OK; }
int cuDevicePrimaryCtxRetain(void **c, int d) { primary_retained++; *c = &context; return OK; }
int cuDevicePrimaryCtxRelease_v2(int d) { primary_retained--; return OK; }
int cuCtxPushCurrent_v2(void *c) { stack[depth++] = c; return OK; }
int cuCtxGetCurrent(void **c) { *c = depth ? stack[depth - 1] : 0; return OK; }
int cuPointerGetAttribute(void **value, int attribute, uint64_t p) { *value = p == foreign ? &foreign : (void *)&context; return p && attribute == 1 ? OK : INVALID_VALUE; }
int cuCtxPopCurrent_v2(void **c) { NEEDS_CONTEXT; *c = stack[--depth]; return OK; }
int cuStreamCreate(Stream **s, unsigned flags) { NEEDS_CONTEXT; *s = calloc(1, sizeof(Stream)); live_streams++; return OK; }
int cuStreamDestroy_v2(Stream *s) { NEEDS_CONTEXT; free(s); live_streams--; return OK; }
int cuStreamQuery(Stream *s) { return s->capturing ? 900 : now() < s->busy_until ? NOT_READY : OK; }
int cuEventCreate(void **e, unsigned flags) { NEEDS_CONTEXT; *e = malloc(1); live_events++; return OK; }
int cuEventDestroy_v2(void *e) { NEEDS_CONTEXT; free(e); live_events--; return OK; }
int cuEventRecord(void *e, Stream *s) { NEEDS_CONTEXT; return OK; }
int cuEventQuery(void *e) { return OK; }
int cuEventElapsedTime_v2(float *ms, void *a, void *b) { *ms = 0.25f; return OK; }
int cuEventElapsedTime(float *ms, void *a, void *b) { *ms = 0.25f; return OK; }
int cuMemGetInfo_v2(size_t *free_bytes, size_t *total) { NEEDS_CONTEXT; *free_bytes = limit_bytes - used_bytes; *total = limit_bytes; return OK; }
int cuMemAlloc_v2(uint64_t *p, size_t size) {
    NEEDS_CONTEXT;
    pthread_mutex_lock(&lock);
    const int fits = used_bytes + size <= limit_bytes;
    if (fits) { used_bytes += size; live_device++; }
    pthread_mutex_unlock(&lock);
    if (!fits) return OUT_OF_MEMORY;
    char *block = aligned_alloc(512, (size + 1023) / 512 * 512);
    *(size_t *)block = size;
    *p = (uint64_t)(uintptr_t)(block + 512);
    return OK;
}
int cuMemFree_v2(uint64_t p) {
    NEEDS_CONTEXT;
    char *block = (char *)(uintptr_t)p - 512;
    pthread_mutex_lock(&lock);
    used_bytes -= *(size_t *)block; live_device--;
    pthread_mutex_unlock(&lock);
    free(block);
    return OK;
}
int cuMemHostAlloc(void **p, size_t size, unsigned flags) {
    NEEDS_CONTEXT;
    *p = aligned_alloc(512, (size + 511) / 512 * 512);
    pthread_mutex_lock(&lock);
    int i = 0;
    while (i < HOST_BLOCKS && host_blocks[i].begin) i++;
    if (i < HOST_BLOCKS) host_blocks[i] = (HostBlock){*p, size};
    live_host++;
    pthread_mutex_unlock(&lock);
    return i < HOST_BLOCKS ? OK : OUT_OF_MEMORY;
}
int cuMemFreeHost(void *p) {
    NEEDS_CONTEXT;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < HOST_BLOCKS; i++)
        if (host_blocks[i].begin == p) host_blocks[i].begin = 0;
    live_host--;
    pthread_mutex_unlock(&lock);
    free(p);
    return OK;
}
int cuMemHostGetDevicePointer_v2(uint64_t *d, void *p, unsigned flags) { *d = (uint64_t)(uintptr_t)p; return OK; }
int cuMemsetD8Async(uint64_t p, unsigned char value, size_t size, Stream *s) { NEEDS_CONTEXT; memset((void *)(uintptr_t)p, value, size); return OK; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t size, Stream *s) {
    return put(s, (Work){1, (void *)(uintptr_t)to, from, size, 0, 0, 1, 0, 0});
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t size, Stream *s) {
    return put(s, (Work){1, to, (const void *)(uintptr_t)from, size, 0, 0, 1, 0, 0});
}
typedef struct { size_t sx, sy; int st; const void *sh; uint64_t sd; void *sa; size_t sp; size_t dx, dy; int dt; void *dh; uint64_t dd; void *da; size_t dp; size_t width, height; } Copy2D;
int cuMemcpy2DAsync_v2(const Copy2D *c, Stream *s) {
    if (c->st != 1 || c->dt != 2 || c->sp < c->width || c->dp < c->width) return INVALID_VALUE;
    const char *from = (const char *)c->sh + c->sy * c->sp + c->sx;
    char *to = (char *)(uintptr_t)c->dd + c->dy * c->dp + c->dx;
    return put(s, (Work){1, to, from, c->width, c->dp, c->sp, c->height, 0, 0});
}

/* cuda-bindings asks for functions by their names without the version; the newest is what it is given. */
int cuGetProcAddress_v2(const char *name, void **found, int version, uint64_t flags, int *status) {
    char newest[128];
    snprintf(newest, sizeof newest, "%s_v2", name);
    *found = dlsym(RTLD_DEFAULT, newest);
    if (!*found) *found = dlsym(RTLD_DEFAULT, name);
    if (status) *status = *found ? 0 : 1;
    return *found ? OK : 500;
}

/* For the test: the emulated CUDA runtime's functions (emulated_cuda/runtime.cpp), switches, and what is still alive. */
int sim_put(Stream *s, Callback call, void *data) { return put(s, (Work){2, 0, 0, 0, 0, 0, 1, call, data}); }
int sim_capturing(Stream *s) { return s && s->capturing; }
int sim_begin(Stream *s) { s->capturing = 1; s->count = 0; return OK; }
Stream *sim_end(Stream *s) { Stream *graph = malloc(sizeof(Stream)); *graph = *s; s->capturing = 0; s->count = 0; return graph; }
int sim_instantiate(Stream *graph) { return OK; }
size_t sim_kernels(const Stream *graph) {  /* our own, and the plan's run as one */
    size_t found = 0;
    for (size_t i = 0; i < graph->count; i++) found += graph->works[i].kind == 2;
    return found;
}
int sim_launch(Stream *graph, Stream *s) {
    for (size_t i = 0; i < graph->count && !idle; i++) do_work(&graph->works[i]);
    s->busy_until = now() + busy_seconds;
    return OK;
}
void sim_destroy(Stream *graph) { free(graph); }
int sim_wait(Stream *s, Stream *producer) { return OK; }
const void *sim_mapped(const char *host) {
    pthread_mutex_lock(&lock);
    const void *found = 0;
    for (int i = 0; i < HOST_BLOCKS && !found; i++)
        if (host_blocks[i].begin && host >= host_blocks[i].begin && host < host_blocks[i].begin + host_blocks[i].size) found = host;
    pthread_mutex_unlock(&lock);
    return found;
}
int sim_copy(Stream *s, void *to, const void *from, size_t row_bytes, size_t rows, size_t to_pitch, size_t pitch) {
    return put(s, (Work){1, to, from, row_bytes, to_pitch, pitch, rows, 0, 0});
}
/* A launch keeps its stream busy for so long; with `idle_` it does nothing else. */
void sim_busy(double seconds, int idle_) { busy_seconds = seconds; idle = idle_; }
/* Memory at this address was allocated in another context. */
void sim_foreign(uint64_t p) { foreign = p; }
void sim_limit(size_t bytes) { limit_bytes = bytes; }
void sim_alive(int *counts) { counts[0] = live_device; counts[1] = live_host; counts[2] = live_streams; counts[3] = live_events; counts[4] = depth; }
