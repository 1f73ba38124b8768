// SPDX-License-Identifier: MIT
// The kernel's uevents. They are a reason to look at the slots again and nothing more: memory has one per block.
#include "hpfeed.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int hf_open_uevents(const char *fifo)
{
    if (fifo != NULL)
    {
        // For writing too, so that the reader never sees an end.
        const int file = open(fifo, O_RDWR | O_NONBLOCK | O_CLOEXEC);
        if (file < 0)
        {
            hf_log("cannot open %s: %m", fifo);
            exit(1);
        }
        return file;
    }
    const int receive_bytes = 4 << 20;
    const struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = 1};
    const int file = socket(AF_NETLINK, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
    if (file < 0 || bind(file, (const struct sockaddr *)&address, sizeof address) != 0)
    {
        hf_log("cannot listen to uevents: %m");
        exit(1);
    }
    (void)setsockopt(file, SOL_SOCKET, SO_RCVBUFFORCE, &receive_bytes, sizeof receive_bytes);
    return file;
}

static bool is_ours(const char *message)
{
    static const char *const places[] = {
        "/devices/system/cpu/cpu",
        "/devices/system/memory/memory",
        "/LNXCPU:",
        "/PNP0C80:",
    };
    for (size_t index = 0; index < sizeof places / sizeof places[0]; index++)
    {
        if (strstr(message, places[index]) != NULL)
        {
            return true;
        }
    }
    return false;
}

hf_uevent hf_drain_uevents(int file)
{
    char message[8192]; // its first string is ACTION@DEVPATH
    hf_uevent seen = HF_NOTHING;
    for (;;)
    {
        const ssize_t length = read(file, message, sizeof message - 1);
        if (length < 0 && errno == EINTR)
        {
            continue;
        }
        if (length < 0 && errno == ENOBUFS)
        {
            seen = HF_REMOVING; // some were lost, so anything may have happened
            continue;
        }
        if (length <= 0)
        {
            return seen;
        }
        message[length] = '\0';
        if (is_ours(message))
        {
            const bool removing = strncmp(message, "remove@", 7) == 0 || strncmp(message, "offline@", 8) == 0;
            seen = removing || seen == HF_REMOVING ? HF_REMOVING : HF_CHANGED;
        }
    }
}
