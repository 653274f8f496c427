/* Plays libcuda for the tests of the probe. Environment: CUDA_VISIBLE_DEVICES as CUDA has it (one
   number, or empty); PLAY_GPUS: how many (1); PLAY_INIT: what cuInit returns (0), or "crash", or
   "hang"; PLAY_LOG: a file that gets a line for each cuInit; PLAY_MEMORY: bytes of memory that can be
   had (no limit), which the host's plays; PLAY_OLD_ATTRIBUTES: 1 if ECC is not known; PLAY_STREAM: what
   waiting for a stream returns (0). -DOLD: a driver before CUDA 11.4. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int number(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text && *text ? atoi(text) : otherwise;
}

int cuInit(unsigned flags) {
    const char *log = getenv("PLAY_LOG"), *init = getenv("PLAY_INIT");
    if (log) { FILE *f = fopen(log, "a"); fputs("init\n", f); fclose(f); }
    if (init && !strcmp(init, "crash")) abort();
    if (init && !strcmp(init, "hang")) sleep(600);
    if (getenv("CUDA_VISIBLE_DEVICES") && !*getenv("CUDA_VISIBLE_DEVICES")) return 100;
    return number("PLAY_INIT", 0);
}
int cuDriverGetVersion(int *v) { *v = 12060; return 0; }
int cuDeviceGetCount(int *n) {
    *n = getenv("CUDA_VISIBLE_DEVICES") ? 1 : number("PLAY_GPUS", 1);
    return 0;
}
int cuDeviceGet(int *device, int index) { *device = index + number("CUDA_VISIBLE_DEVICES", 0); return 0; }
int cuDeviceGetName(char *name, int length, int device) {
    snprintf(name, length, device ? "NVIDIA GeForce RTX 5090" : "Orin");
    return 0;
}
int cuGetErrorString(int status, const char **text) {
    *text = status == 100   ? "no CUDA-capable device is detected"
            : status == 2   ? "out of memory"
            : status == 201 ? "invalid device context"
            : status == 700 ? "an illegal memory access was encountered"
                            : "unknown error";
    return status == 12345;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
    case 14: *value = 512; return 0;
    case 32: *value = !!device; return number("PLAY_OLD_ATTRIBUTES", 0);
    case 97: *value = device ? 99 << 10 : 163 << 10; return 0;
    case 16: *value = device ? 170 : 8; return 0;
    case 18: *value = !device; return 0;
    case 37: *value = device ? 512 : 128; return 0;
    case 38: *value = device ? 96 << 20 : 2 << 20; return 0;
    case 75: *value = device ? 12 : 8; return 0;
    case 76: *value = device ? 0 : 7; return 0;
    }
    return 1;
}

static __thread int current;
static int retained, allocations;
static size_t allocated;

int cuDevicePrimaryCtxRetain(void **context, int device) {
    *context = &retained;
    retained++;
    return device == number("CUDA_VISIBLE_DEVICES", 0) ? 0 : 101;
}
int cuCtxSetCurrent(void *context) { current = context == &retained; return current ? 0 : 201; }
int cuCtxSynchronize(void) { return current ? 0 : 201; }
int cuMemAlloc_v2(unsigned long long *pointer, size_t bytes) {
    if (!current) return 201;
    if (getenv("PLAY_MEMORY") && allocated + bytes > (size_t)number("PLAY_MEMORY", 0)) return 2;
    allocated += bytes;
    allocations++;
    *pointer = (unsigned long long)malloc(bytes);
    return 0;
}
int cuMemcpyHtoD_v2(unsigned long long pointer, const void *from, size_t bytes) {
    if (!current) return 201;
    memcpy((void *)pointer, from, bytes);
    return 0;
}
int cuMemcpyDtoH_v2(void *to, unsigned long long pointer, size_t bytes) {
    if (!current) return 201;
    memcpy(to, (const void *)pointer, bytes);
    return 0;
}
int cuStreamCreate(void **stream, unsigned flags) {
    *stream = &allocated;
    return current && !flags ? 0 : 201;
}
int cuStreamSynchronize(void *stream) {
    return stream == &allocated ? number("PLAY_STREAM", 0) : 400;
}
int cuMemFree_v2(unsigned long long pointer) {
    if (!current) return 201;
    free((void *)pointer);
    allocations--;
    return 0;
}
int play_allocations(void) { return allocations; }

#ifdef OLD
int cuDeviceTotalMem(size_t *bytes, int device) { *bytes = 1; return 0; }
#else
int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    *bytes = device ? (size_t)32607 << 20 : (size_t)15655 << 20;
    return 0;
}
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) { memset(uuid, 0xa0 + device, 16); return 0; }
#endif
