// SPDX-License-Identifier: MIT
// A present vCPU and a present DIMM on their way into Linux and to the driver.
#include "slots.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const unsigned STATUS_UNSUCCESSFUL = 0xC0000001u;

// The instance that Windows gives a device: its _UID, which Linux shows as it is. Without one, or with one that could
// be no part of a link, the number of the slot.
static void instance_of(const acpi_slot *slot, char *instance, size_t size)
{
    static const char allowed[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-.";
    char path[HF_PATH_SIZE];
    (void)snprintf(path, sizeof path, "bus/acpi/devices/%s/uid", slot->name);
    if (!hf_read(path, instance, size) || instance[0] == '\0' || instance[strspn(instance, allowed)] != '\0')
    {
        (void)snprintf(instance, size, "%u", slot->number);
    }
}

void hf_slot_link(const acpi_slot *slot, char *line, size_t size, const char *verb)
{
    if (slot->kind == SLOT_VCPU)
    {
        (void)snprintf(
            line, size,
            "%s processor \\??\\ACPI#GenuineIntel_-_Intel64_Family_6_Model_6_-_QEMU_Virtual_CPU#_%u"
            "#{97fadb10-4e33-40ae-359c-8bef029dbdd0}",
            verb, slot->number);
        return;
    }
    char instance[32];
    instance_of(slot, instance, sizeof instance);
    (void)snprintf(
        line, size, "%s memory \\??\\ACPI#PNP0C80#%s#{3fd0f03d-92e0-45fb-b75c-5ed8ffb01021}", verb, instance);
}

static void announce(acpi_slot *slot)
{
    char request[HF_LINE_SIZE];
    char reply[HF_LINE_SIZE];
    hf_slot_link(slot, request, sizeof request, "arrive");
    (void)hf_ask(request, reply, sizeof reply);
    slot->state = SLOT_ANNOUNCED;
}

// Before anything that makes a driver read the figures.
static void tell_system(void)
{
    char request[HF_LINE_SIZE];
    char reply[HF_LINE_SIZE];
    if (hf_system_line(request, sizeof request))
    {
        (void)hf_ask(request, reply, sizeof reply);
    }
}

// Returns the status that the drivers' callbacks have left.
static unsigned tell_processor(unsigned cpu, const char *state, unsigned status)
{
    char request[HF_LINE_SIZE];
    char reply[HF_LINE_SIZE];
    (void)snprintf(request, sizeof request, "processor %s %u 0x%08x", state, cpu, status);
    return hf_ask(request, reply, sizeof reply) ? (unsigned)strtoul(reply + 2, NULL, 0) : 0;
}

static bool parse_cpu(const char *name, unsigned *cpu)
{
    char *end = NULL;
    if (strncmp(name, "cpu", 3) != 0 || name[3] < '0' || name[3] > '9')
    {
        return false;
    }
    *cpu = (unsigned)strtoul(name + 3, &end, 10);
    return *end == '\0';
}

// Linux links the two when it has registered the vCPU, one way or both depending on its version.
static bool find_cpu(const acpi_slot *slot, unsigned *cpu)
{
    char path[HF_PATH_SIZE];
    char name[64];
    (void)snprintf(path, sizeof path, "bus/acpi/devices/%s/physical_node", slot->name);
    if (hf_link_name(path, name, sizeof name) && parse_cpu(name, cpu))
    {
        return true;
    }
    bool found = false;
    const int file = hf_open_directory("devices/system/cpu");
    DIR *directory = file < 0 ? NULL : fdopendir(file);
    for (struct dirent *entry = NULL; directory != NULL && !found && (entry = readdir(directory)) != NULL;)
    {
        (void)snprintf(path, sizeof path, "devices/system/cpu/%s/firmware_node", entry->d_name);
        found = parse_cpu(entry->d_name, cpu) && hf_link_name(path, name, sizeof name) && strcmp(name, slot->name) == 0;
    }
    if (directory != NULL)
    {
        (void)closedir(directory);
    }
    return found;
}

static void give_up_vcpu(acpi_slot *slot)
{
    (void)tell_processor(slot->cpu, "add_failure", STATUS_UNSUCCESSFUL);
    slot->state = SLOT_ABANDONED;
}

void hf_advance_vcpu(acpi_slot *slot)
{
    if (slot->state == SLOT_PRESENT && find_cpu(slot, &slot->cpu))
    {
        const unsigned status = tell_processor(slot->cpu, "add_start", 0);
        if (status != 0)
        {
            // Whom it concerns has been told by the PnP manager.
            hf_log("a driver refused cpu%u", slot->cpu);
            slot->state = SLOT_ABANDONED;
            return;
        }
        slot->state = SLOT_STARTING;
        if (!hf_bring_cpu_online(slot->cpu))
        {
            hf_log("Linux cannot bring cpu%u online: %m", slot->cpu);
            give_up_vcpu(slot);
            return;
        }
    }
    if (slot->state == SLOT_STARTING && hf_cpu_online(slot->cpu))
    {
        tell_system();
        (void)tell_processor(slot->cpu, "add_complete", 0);
        announce(slot);
    }
}

// Whether the DIMM has memory blocks and all of them are online.
static bool is_memory_online(const acpi_slot *slot)
{
    char path[HF_PATH_SIZE];
    char state[32];
    (void)snprintf(path, sizeof path, "bus/acpi/devices/%s", slot->name);
    const int file = hf_open_directory(path);
    DIR *directory = file < 0 ? NULL : fdopendir(file);
    unsigned blocks = 0;
    unsigned online = 0;
    for (struct dirent *entry = NULL; directory != NULL && (entry = readdir(directory)) != NULL;)
    {
        if (strncmp(entry->d_name, "physical_node", strlen("physical_node")) != 0)
        {
            continue;
        }
        (void)snprintf(path, sizeof path, "bus/acpi/devices/%s/%s/state", slot->name, entry->d_name);
        blocks += 1;
        online += hf_read(path, state, sizeof state) && strcmp(state, "online") == 0;
    }
    if (directory != NULL)
    {
        (void)closedir(directory);
    }
    return blocks != 0 && online == blocks;
}

void hf_advance_dimm(acpi_slot *slot)
{
    if (is_memory_online(slot))
    {
        tell_system();
        announce(slot);
    }
}
