/* A made-up libnvidia-ml.so.1 for the real binding: two devices whose numbers follow fixed scripts.
 *
 * STUB_NVML names the fault to play, empty for none; STUB_NVML_WORKER is a file with the process
 * id of the worker, which is on the device as long as the file exists. Counts start again whenever
 * the library is initialised anew. The layouts are those of nvml.h as the binding declares them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SUCCESS = 0, UNINITIALIZED = 1, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9, FUNCTION_NOT_FOUND = 13, GPU_IS_LOST = 15, VERSION_MISMATCH = 25
};
#define GIB (1ULL << 30)
#define LENGTH(a) (int)(sizeof(a) / sizeof(*a))
#define MEMORY_V2 0x02000028u
#define NOT_AVAILABLE (~0ULL)
#define LOST_AT 2 /* reading, counted from 0, from which on a lost device is gone */

typedef struct { const char *uuid, *name; unsigned long long total; } Device;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } MemoryV2;
typedef struct { unsigned int pid; unsigned long long used; unsigned int gpu, compute; } Process;

static Device devices[] = {
    {"GPU-11111111-aaaa", "Stub GPU A", 80 * GIB},
    {"GPU-22222222-bbbb", "Stub GPU B", 24 * GIB},
};
/* Peaks are neither first nor last; the first version of the call counts the driver's share. */
static const unsigned long long used_v1[] = {6 * GIB, 7 * GIB, 9 * GIB, 8 * GIB};
static const unsigned long long used_v2[] = {5 * GIB, 6 * GIB, 9 * GIB, 7 * GIB};
static const unsigned long long held[] = {1 * GIB, 3 * GIB, 2 * GIB};

static int users, memory_readings, worker_readings, energy_readings;

static int playing(const char *fault) {
    const char *now = getenv("STUB_NVML");
    return now && !strcmp(now, fault);
}

static int lost(int reading) { return playing("lost") && reading >= LOST_AT; }

static unsigned long long at(const unsigned long long *script, int length, int reading) {
    return script[reading < length ? reading : length - 1];
}

static unsigned int worker(void) {
    const char *path = getenv("STUB_NVML_WORKER");
    FILE *file = path ? fopen(path, "r") : NULL;
    unsigned int pid = 0;
    if (file) {
        if (fscanf(file, "%u", &pid) != 1) pid = 0;
        fclose(file);
    }
    return pid;
}

int stub_readings(void) { return memory_readings; }

int nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    if (playing("no_driver")) return DRIVER_NOT_LOADED;
    if (!users++) memory_readings = worker_readings = energy_readings = 0;
    return SUCCESS;
}

int nvmlShutdown(void) {
    if (!users) return UNINITIALIZED;
    users--;
    return SUCCESS;
}

int nvmlSystemGetDriverVersion(char *text, unsigned int size) {
    snprintf(text, size, "575.01");
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned int *count) {
    *count = LENGTH(devices);
    return users ? SUCCESS : UNINITIALIZED;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, Device **device) {
    if (index >= (unsigned int)LENGTH(devices)) return NOT_FOUND;
    *device = &devices[index];
    return users ? SUCCESS : UNINITIALIZED;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, Device **device) {
    for (int i = 0; i < LENGTH(devices); i++)
        if (!strcmp(uuid, devices[i].uuid)) return nvmlDeviceGetHandleByIndex_v2(i, device);
    return NOT_FOUND;
}

int nvmlDeviceGetName(Device *device, char *text, unsigned int size) {
    snprintf(text, size, "%s", device->name);
    return SUCCESS;
}

int nvmlDeviceGetUUID(Device *device, char *text, unsigned int size) {
    snprintf(text, size, "%s", device->uuid);
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(Device *device, Memory *memory) {
    int reading = memory_readings++;
    if (lost(reading)) return GPU_IS_LOST;
    memory->total = device->total;
    memory->used = at(used_v1, LENGTH(used_v1), reading);
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(Device *device, MemoryV2 *memory) {
    if (playing("old_driver")) return FUNCTION_NOT_FOUND;
    if (memory->version != MEMORY_V2) return VERSION_MISMATCH;
    int reading = memory_readings++;
    if (lost(reading)) return GPU_IS_LOST;
    memory->total = device->total;
    memory->reserved = 1 * GIB;
    memory->used = at(used_v2, LENGTH(used_v2), reading);
    memory->free = memory->total - memory->reserved - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(Device *device, unsigned int *count, Process *out) {
    (void)device;
    if (playing("old_driver")) return FUNCTION_NOT_FOUND;
    if (lost(memory_readings)) return GPU_IS_LOST;
    Process listed[3];
    int length = 0;
    unsigned int pid = playing("unlisted") ? 0 : worker();
    if (playing("others")) listed[length++] = (Process){4000001, 1 * GIB, 0, 0};
    if (pid) {
        unsigned long long now = at(held, LENGTH(held), worker_readings);
        if (out) worker_readings++;
        if (playing("unknown_memory")) now = NOT_AVAILABLE;
        if (playing("other_numbers")) pid = 4000003;
        listed[length++] = (Process){pid, now, 0, 0};
        if (playing("others")) listed[length++] = (Process){4000002, 2 * GIB, 0, 0};
    }
    unsigned int room = *count;
    *count = length;
    if (!length) return SUCCESS;
    if (!out || room < (unsigned int)length) return INSUFFICIENT_SIZE;
    memcpy(out, listed, length * sizeof(Process));
    return SUCCESS;
}

int nvmlDeviceGetTotalEnergyConsumption(Device *device, unsigned long long *millijoules) {
    (void)device;
    int reading = energy_readings++;
    if (playing("no_energy")) return NOT_SUPPORTED;
    if (lost(reading)) return GPU_IS_LOST;
    *millijoules = 1000000ULL + 250500ULL * reading;
    return SUCCESS;
}
