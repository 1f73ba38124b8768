// SPDX-License-Identifier: MIT
// The table of ACPI slots. They exist from boot, empty or not; what counts is which slot's status became present.
#include "slots.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const int64_t TAKEN_IN_WITHIN_MS = 30000;

static acpi_slot *g_slots;
static size_t g_slot_count;

static acpi_slot *find_slot(const char *name)
{
    for (size_t index = 0; index < g_slot_count; index++)
    {
        if (strcmp(g_slots[index].name, name) == 0)
        {
            return &g_slots[index];
        }
    }
    return NULL;
}

static int compare_slots(const void *left_slot, const void *right_slot)
{
    const acpi_slot *left = left_slot;
    const acpi_slot *right = right_slot;
    if (left->kind != right->kind)
    {
        return left->kind < right->kind ? -1 : 1;
    }
    return left->number < right->number ? -1 : left->number > right->number;
}

static void add_slot(const char *name)
{
    static const char *const prefixes[] = {[SLOT_VCPU] = "LNXCPU:", [SLOT_DIMM] = "PNP0C80:"};
    for (slot_kind kind = SLOT_VCPU; kind <= SLOT_DIMM; kind++)
    {
        const size_t length = strlen(prefixes[kind]);
        acpi_slot slot = {.kind = kind, .state = SLOT_ABSENT};
        if (strncmp(name, prefixes[kind], length) != 0 || strlen(name) >= sizeof slot.name || find_slot(name) != NULL)
        {
            continue;
        }
        acpi_slot *slots = realloc(g_slots, (g_slot_count + 1) * sizeof *slots);
        if (slots == NULL)
        {
            hf_log("out of memory");
            exit(1);
        }
        slot.number = (unsigned)strtoul(name + length, NULL, 16);
        (void)strcpy(slot.name, name);
        g_slots = slots;
        g_slots[g_slot_count++] = slot;
    }
}

static void find_slots(void)
{
    const int file = hf_open_directory("bus/acpi/devices");
    DIR *directory = file < 0 ? NULL : fdopendir(file);
    if (directory == NULL)
    {
        hf_log("cannot list bus/acpi/devices: %m");
        exit(1);
    }
    for (struct dirent *entry = NULL; (entry = readdir(directory)) != NULL;)
    {
        add_slot(entry->d_name);
    }
    (void)closedir(directory);
    if (g_slot_count != 0)
    {
        qsort(g_slots, g_slot_count, sizeof *g_slots, compare_slots);
    }
}

// Bit 0 of _STA. A device without _STA is present (ACPI 6.5, section 6.3.7).
static bool is_present(const acpi_slot *slot)
{
    char path[HF_PATH_SIZE];
    char status[32];
    (void)snprintf(path, sizeof path, "bus/acpi/devices/%s/status", slot->name);
    return !hf_read(path, status, sizeof status) || (strtoul(status, NULL, 10) & 1) != 0;
}

static void tell(const acpi_slot *slot, const char *verb)
{
    char request[HF_LINE_SIZE];
    char reply[HF_LINE_SIZE];
    hf_slot_link(slot, request, sizeof request, verb);
    (void)hf_ask(request, reply, sizeof reply);
}

static void tell_removed(acpi_slot *slot)
{
    char request[HF_LINE_SIZE];
    char reply[HF_LINE_SIZE];
    if (slot->state == SLOT_ANNOUNCED)
    {
        if (hf_system_line(request, sizeof request))
        {
            (void)hf_ask(request, reply, sizeof reply);
        }
        tell(slot, "remove");
    }
    slot->state = SLOT_ABSENT;
}

void hf_scan_slots(bool announce, bool removing)
{
    find_slots();
    for (size_t index = 0; index < g_slot_count; index++)
    {
        acpi_slot *slot = &g_slots[index];
        // Reading a status runs the firmware's own code.
        if (slot->state != SLOT_ABSENT && !removing)
        {
            continue;
        }
        const bool present = is_present(slot);
        if (!present && slot->state != SLOT_ABSENT)
        {
            tell_removed(slot);
        }
        else if (present && slot->state == SLOT_ABSENT && announce)
        {
            slot->state = SLOT_PRESENT;
            slot->until_ms = hf_now_ms() + TAKEN_IN_WITHIN_MS;
        }
        else if (present && slot->state == SLOT_ABSENT)
        {
            slot->state = SLOT_ANNOUNCED;
            tell(slot, "existing");
        }
    }
}

bool hf_advance_slots(void)
{
    bool under_way = false;
    for (size_t index = 0; index < g_slot_count; index++)
    {
        acpi_slot *slot = &g_slots[index];
        if (slot->state != SLOT_PRESENT && slot->state != SLOT_STARTING)
        {
            continue;
        }
        (slot->kind == SLOT_VCPU ? hf_advance_vcpu : hf_advance_dimm)(slot);
        if (slot->state != SLOT_PRESENT && slot->state != SLOT_STARTING)
        {
            continue;
        }
        if (hf_now_ms() >= slot->until_ms)
        {
            hf_log("%s is present, but Linux did not take it in", slot->name);
            slot->state = SLOT_ABANDONED;
        }
        under_way = under_way || slot->state != SLOT_ABANDONED;
    }
    return under_way;
}
