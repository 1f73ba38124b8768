// SPDX-License-Identifier: MIT
// hpfeed: tells winepnp, through pnpfeed.exe, of the vCPUs and DIMMs that Linux takes in and lets go.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum
{
    HF_PATH_SIZE = 512,
    HF_LINE_SIZE = 512,
};

// log.c
int64_t hf_now_ms(void);               // CLOCK_MONOTONIC
void hf_log_also_to(const char *path); // besides stderr; a file that cannot be written is said there and ends this
void hf_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

// sysfs.c: small files below the root given once; false or negative when there is no such file.
void hf_set_sysfs(const char *root);
bool hf_read(const char *path, char *text, size_t size); // without the line's end
bool hf_write(const char *path, const char *text);
bool hf_link_name(const char *path, char *name, size_t size); // the last part of a symbolic link's target
int hf_open_directory(const char *path);
bool hf_list_has(const char *list, unsigned number); // of a list such as 0-3,6
unsigned hf_list_count(const char *list);

// system.c
bool hf_system_line(char *line, size_t size);
bool hf_cpu_online(unsigned cpu);
bool hf_bring_cpu_online(unsigned cpu);

// feed.c: the pnpfeed process. A request that gets no reply ends this process: nothing can be told any more.
void hf_start_feed(char *const command[]);
bool hf_ask(const char *request, char *reply, size_t size); // whether the reply is ok
int hf_feed_file(void);                                     // hung up when the process has ended

// slots.c: the ACPI slots.
// Without announcing: what is there was there before. Whether what was there has gone is only looked at when removing.
void hf_scan_slots(bool announce, bool removing);
bool hf_advance_slots(void); // whether one is still under way

// uevents.c
int hf_open_uevents(const char *fifo); // NULL: the kernel's
typedef enum
{
    HF_NOTHING,
    HF_CHANGED,
    HF_REMOVING, // the slot's status follows only after the uevent
} hf_uevent;
hf_uevent hf_drain_uevents(int file);
