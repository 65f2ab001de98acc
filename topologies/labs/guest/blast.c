/* blast: UDP packet rates with as few system calls as Linux allows.
 *
 *   blast send ADDRESS PORT BYTES SECONDS   as fast as the device takes them (sendmmsg, 32 at a time)
 *   blast count ADDRESS PORT BYTES PACKETS  exactly PACKETS datagrams
 *   blast recv PORT SECONDS                 counts until nothing came for a second, SECONDS at most
 *
 * Prints one JSON object. `ttl` is [lowest, highest] of the first datagram of each batch.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { SEND_BATCH = 32, RECV_BATCH = 64, MAX_BYTES = 2048, IDLE_MS = 1000 };
static char buffers[RECV_BATCH][MAX_BYTES];
static char control[RECV_BATCH][64];
static struct iovec vectors[RECV_BATCH];
static struct mmsghdr messages[RECV_BATCH];

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void prepare(size_t bytes)
{
    for (int i = 0; i < RECV_BATCH; i++) {
        vectors[i] = (struct iovec){buffers[i], bytes};
        messages[i].msg_hdr.msg_iov = &vectors[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
}

static int transmit(const char *address, int port, size_t bytes, double seconds, unsigned long limit)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (!inet_aton(address, &to.sin_addr) || bytes > MAX_BYTES || connect(fd, (void *)&to, sizeof to)) {
        perror("blast");
        return 1;
    }
    prepare(bytes);
    unsigned long packets = 0;
    double start = now();
    while (limit ? packets < limit : now() - start < seconds) {
        unsigned batch = limit && limit - packets < SEND_BATCH ? limit - packets : SEND_BATCH;
        int sent = sendmmsg(fd, messages, batch, 0);
        if (sent > 0)
            packets += sent;
    }
    printf("{\"packets\": %lu, \"seconds\": %.4f}\n", packets, now() - start);
    return 0;
}

static int ttl_of(struct msghdr *message)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c))
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TTL)
            return *(int *)CMSG_DATA(c);
    return -1;
}

static int receive(int port, double seconds)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0), on = 1, room = 1 << 20, low = 256, high = -1;
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(port)};
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    setsockopt(fd, IPPROTO_IP, IP_RECVTTL, &on, sizeof on);
    if (bind(fd, (void *)&here, sizeof here)) {
        perror("blast");
        return 1;
    }
    prepare(MAX_BYTES);
    unsigned long packets = 0;
    double end = now() + seconds, first = 0, last = 0;
    while (now() < end) {
        struct pollfd waiting = {fd, POLLIN, 0};
        if (poll(&waiting, 1, IDLE_MS) <= 0) {
            if (packets)
                break;
            continue;
        }
        for (int i = 0; i < RECV_BATCH; i++) {
            messages[i].msg_hdr.msg_control = control[i];
            messages[i].msg_hdr.msg_controllen = sizeof control[i];
        }
        int got = recvmmsg(fd, messages, RECV_BATCH, MSG_DONTWAIT, NULL);
        if (got <= 0)
            continue;
        int ttl = ttl_of(&messages[0].msg_hdr);
        low = ttl < low ? ttl : low;
        high = ttl > high ? ttl : high;
        last = now();
        first = first ? first : last;
        packets += got;
    }
    printf("{\"packets\": %lu, \"seconds\": %.4f, \"ttl\": [%d, %d]}\n", packets, last - first, low, high);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 6 && !strcmp(argv[1], "send"))
        return transmit(argv[2], atoi(argv[3]), atoi(argv[4]), atof(argv[5]), 0);
    if (argc == 6 && !strcmp(argv[1], "count"))
        return transmit(argv[2], atoi(argv[3]), atoi(argv[4]), 0, strtoul(argv[5], NULL, 10));
    if (argc == 4 && !strcmp(argv[1], "recv"))
        return receive(atoi(argv[2]), atof(argv[3]));
    fprintf(stderr, "usage: blast send|count ADDRESS PORT BYTES SECONDS|PACKETS; blast recv PORT SECONDS\n");
    return 2;
}
