/*
 * The lab guest's only program: it writes memory and disk blocks and checks, all the time, that what it wrote
 * is still there. Runs as PID 1 of the initramfs, so that its death is a kernel panic and cannot be overlooked.
 *
 * Every 4 KiB page and block carries its index, a generation and a checksum over the whole content. The one
 * writer of an area knows which generation each unit must hold, so a lost, stale or torn write is reported:
 *   lost or stale  right checksum, an older generation
 *   torn, garbage  wrong checksum, wrong index, wrong boot
 *
 * Settings come from the kernel command line (sterna.NAME=VALUE):
 *   rate    MiB/s of memory written; 0 = verify only       area    MiB of memory in use
 *   blocks  4 KiB blocks written per second and disk       disk    MiB in use on each disk
 *   tick    ms between two looks at the clock (50); less sees shorter gaps and is dear for the host
 *   probe   print the ready marker and power off (to find out whether an accelerator really works)
 *
 * UDP port 7000 answers any datagram with one JSON object. Words it understands:
 *   reset                      forget the longest tick gap
 *   corrupt-page, stale-page   damage one page, so that a test can see that the checker notices
 *   corrupt-block, stale-block the same for one block of the first disk
 *   panic                      crash the kernel
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { UNIT = 4096, WORDS = UNIT / 8, PORT = 7000, MAX_DISKS = 8, MAX_REPORTED = 20 };
enum { INDEX, GENERATION, BOOT, FIRST_PAYLOAD, CHECKSUM = WORDS - 1 };
enum fault { NO_FAULT, CORRUPT, STALE };

struct disk {
	char name[8];
	int fd;
	uint64_t units;
	uint32_t *generation;
	_Atomic uint64_t passes, verified, errors, io_errors;
	_Atomic int fault;
};

static struct disk disks[MAX_DISKS];
static int disk_count;
static uint64_t rate_mib, area_mib = 32, blocks_per_s = 32, disk_mib = 4, tick_ms = 50;
static uint64_t boot_nonce;
static char boot_id[64];
static _Atomic uint64_t passes, pages_verified, page_errors, max_tick_gap_us;
static _Atomic int page_fault_wanted;
static char last_error[160];
static pthread_mutex_t error_lock = PTHREAD_MUTEX_INITIALIZER;

static uint64_t now_us(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void report(const char *format, ...)
{
	static int reported;
	va_list args;
	pthread_mutex_lock(&error_lock);
	va_start(args, format);
	vsnprintf(last_error, sizeof last_error, format, args);
	va_end(args);
	if (reported++ < MAX_REPORTED)
		printf("STERNA-GUEST-ERROR %s\n", last_error);
	pthread_mutex_unlock(&error_lock);
}

/* Four independent sums, so that the loop is cheap under software emulation; position counts (the rotation). */
static uint64_t checksum(const uint64_t *unit)
{
	uint64_t a = 1, b = 2, c = 3, d = 4;
	for (int i = 0; i < CHECKSUM - 3; i += 4) {
		a = ((a << 7) | (a >> 57)) + unit[i];
		b = ((b << 9) | (b >> 55)) + unit[i + 1];
		c = ((c << 11) | (c >> 53)) + unit[i + 2];
		d = ((d << 13) | (d >> 51)) + unit[i + 3];
	}
	a += unit[CHECKSUM - 3], b += unit[CHECKSUM - 2], c += unit[CHECKSUM - 1];
	return a ^ (b << 1 | b >> 63) ^ (c << 2 | c >> 62) ^ (d << 3 | d >> 61);
}

static void fill(uint64_t *unit, uint64_t index, uint64_t generation)
{
	uint64_t word = (index * 0x9E3779B97F4A7C15u) ^ (generation * 0xC2B2AE3D27D4EB4Fu) ^ boot_nonce;
	unit[INDEX] = index, unit[GENERATION] = generation, unit[BOOT] = boot_nonce;
	for (int i = FIRST_PAYLOAD; i < CHECKSUM; i++)
		unit[i] = word += 0xD6E8FEB86659FD93u;
	unit[CHECKSUM] = checksum(unit);
}

/* The name of what is wrong with a unit, or NULL. */
static const char *wrong(const uint64_t *unit, uint64_t index, uint64_t generation)
{
	if (checksum(unit) != unit[CHECKSUM])
		return "torn or garbage (checksum)";
	if (unit[BOOT] != boot_nonce)
		return "from another boot";
	if (unit[INDEX] != index)
		return "misplaced (index)";
	if (unit[GENERATION] != generation)
		return unit[GENERATION] < generation ? "lost or stale (older generation)" : "from the future";
	return NULL;
}

static void damage(uint64_t *unit, uint64_t index, uint64_t generation, enum fault fault)
{
	if (fault == CORRUPT)
		((unsigned char *)unit)[1234] ^= 0x40;
	else
		fill(unit, index, generation ? generation - 1 : 0);
}

/* Sleeps until the next slot of the schedule; after a long pause starts a new one instead of catching up. */
static void pace(struct timespec *next, long interval_ns)
{
	struct timespec now;
	next->tv_nsec += interval_ns;
	if (next->tv_nsec >= 1000000000)
		next->tv_nsec -= 1000000000, next->tv_sec++;
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (now.tv_sec > next->tv_sec + 1)
		*next = now;
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, next, NULL);
}

static void *memory_main(void *unused)
{
	uint64_t pages = area_mib * 256, generation = 1, slot = 0;
	uint64_t verify_only = rate_mib == 0, speed = (verify_only ? 8 : rate_mib) * 256;
	uint64_t *area = mmap(NULL, pages * UNIT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct timespec next;
	(void)unused;
	if (area == MAP_FAILED) {
		report("no memory for an area of %lu MiB", area_mib);
		atomic_fetch_add(&page_errors, 1);
		return NULL;
	}
	for (uint64_t i = 0; i < pages; i++)
		fill(area + i * WORDS, i, generation);
	clock_gettime(CLOCK_MONOTONIC, &next);
	for (uint64_t i = 0;; pace(&next, 20000000), slot = (slot + 1) % 50) {
		int fault = atomic_exchange(&page_fault_wanted, NO_FAULT);
		if (fault) {
			uint64_t victim = i + 1 < pages ? i + 1 : i;
			damage(area + victim * WORDS, victim, generation, fault);
		}
		/* 1/50 s of the rate, without losing the fraction; each wake-up is dear for an emulated guest */
		for (uint64_t n = speed * (slot + 1) / 50 - speed * slot / 50; n; n--) {
			const char *reason = wrong(area + i * WORDS, i, generation);
			atomic_fetch_add(&pages_verified, 1);
			if (reason) {
				atomic_fetch_add(&page_errors, 1);
				report("page %lu of pass %lu: %s", i, generation, reason);
			}
			if (!verify_only || reason)
				fill(area + i * WORDS, i, generation + !verify_only);
			if (++i == pages) {
				i = 0, generation += !verify_only;
				atomic_fetch_add(&passes, 1);
			}
		}
	}
}

static int block_io(struct disk *disk, uint64_t *buffer, uint64_t index, int writing)
{
	ssize_t done = writing ? pwrite(disk->fd, buffer, UNIT, index * UNIT) : pread(disk->fd, buffer, UNIT, index * UNIT);
	if (done == UNIT)
		return 1;
	atomic_fetch_add(&disk->io_errors, 1);
	report("%s block %lu: %s failed: %s", disk->name, index, writing ? "write" : "read", strerror(errno));
	return 0;
}

static void visit_block(struct disk *disk, uint64_t *buffer, uint64_t index)
{
	uint32_t *generation = &disk->generation[index];
	int fault = *generation ? atomic_exchange(&disk->fault, NO_FAULT) : NO_FAULT;
	if (fault) {
		fill(buffer, index, *generation);
		damage(buffer, index, *generation, fault);
		block_io(disk, buffer, index, 1);
	}
	if (*generation) { /* 0: what is there was written before this boot, or by a write that failed */
		if (!block_io(disk, buffer, index, 0))
			return;
		const char *reason = wrong(buffer, index, *generation);
		atomic_fetch_add(&disk->verified, 1);
		if (reason) {
			atomic_fetch_add(&disk->errors, 1);
			report("%s block %lu of generation %u: %s", disk->name, index, *generation, reason);
		}
	}
	fill(buffer, index, *generation + 1);
	if (block_io(disk, buffer, index, 1))
		++*generation;
	else if (!block_io(disk, buffer, index, 0) || wrong(buffer, index, *generation))
		*generation = 0; /* a failed write may have reached the disk or not: start afresh here */
}

static void *disk_main(void *argument)
{
	struct disk *disk = argument;
	uint64_t *buffer, step = 1021; /* a prime: every block is visited once per pass, but not in a row */
	struct timespec next;
	if (posix_memalign((void **)&buffer, UNIT, UNIT))
		abort();
	if (disk->units % step == 0)
		step = 1;
	for (uint64_t index = 0; index < disk->units; index++)
		visit_block(disk, buffer, index);
	clock_gettime(CLOCK_MONOTONIC, &next);
	for (uint64_t n = 0;; n++) {
		visit_block(disk, buffer, n * step % disk->units);
		if (n % disk->units == disk->units - 1)
			atomic_fetch_add(&disk->passes, 1);
		if (n % 128 == 127 && fdatasync(disk->fd)) {
			atomic_fetch_add(&disk->io_errors, 1);
			report("%s: flush failed: %s", disk->name, strerror(errno));
		}
		pace(&next, 1000000000 / blocks_per_s);
	}
}

static void *tick_main(void *unused)
{
	(void)unused;
	for (uint64_t last = now_us(CLOCK_MONOTONIC);;) {
		usleep(1000 * tick_ms);
		uint64_t now = now_us(CLOCK_MONOTONIC), gap = now - last;
		if (gap > atomic_load(&max_tick_gap_us))
			atomic_store(&max_tick_gap_us, gap);
		last = now;
	}
	return NULL;
}

static size_t status(char *out, size_t size)
{
	uint64_t verified = 0, errors = 0, io_errors = 0;
	size_t n;
	for (int i = 0; i < disk_count; i++)
		verified += disks[i].verified, errors += disks[i].errors, io_errors += disks[i].io_errors;
	pthread_mutex_lock(&error_lock);
	n = snprintf(out, size,
		     "{\"boot_id\": \"%s\", \"uptime_ms\": %lu, \"pages\": %lu, \"passes\": %lu, \"pages_verified\": %lu, "
		     "\"page_errors\": %lu, \"blocks_verified\": %lu, \"block_errors\": %lu, \"io_errors\": %lu, "
		     "\"last_error\": \"%s\", \"max_tick_gap_ms\": %.3f, \"dirty_mib_s\": %lu, \"disks\": [",
		     boot_id, now_us(CLOCK_BOOTTIME) / 1000, area_mib * 256, passes, pages_verified, page_errors, verified,
		     errors, io_errors, last_error, max_tick_gap_us / 1000.0, rate_mib);
	pthread_mutex_unlock(&error_lock);
	for (int i = 0; i < disk_count; i++) {
		struct disk *d = &disks[i];
		n += snprintf(out + n, size - n,
			      "%s{\"device\": \"%s\", \"blocks\": %lu, \"passes\": %lu, \"verified\": %lu, \"errors\": %lu, "
			      "\"io_errors\": %lu}",
			      i ? ", " : "", d->name, d->units, d->passes, d->verified, d->errors, d->io_errors);
	}
	return n + snprintf(out + n, size - n, "]}\n");
}

static void obey(const char *word)
{
	if (!strncmp(word, "reset", 5))
		atomic_store(&max_tick_gap_us, 0);
	else if (!strncmp(word, "corrupt-page", 12) || !strncmp(word, "stale-page", 10))
		atomic_store(&page_fault_wanted, *word == 'c' ? CORRUPT : STALE);
	else if (!strncmp(word, "corrupt-block", 13) || !strncmp(word, "stale-block", 11))
		atomic_store(&disks[0].fault, *word == 'c' ? CORRUPT : STALE);
	else if (!strncmp(word, "panic", 5)) {
		int fd = open("/proc/sysrq-trigger", O_WRONLY);
		if (fd < 0 || write(fd, "c", 1) != 1)
			report("panic: %s", strerror(errno));
	}
}

static void serve(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT)}, peer;
	static char word[64], answer[4096];
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address)) {
		perror("STERNA-GUEST-ERROR UDP port");
		exit(1);
	}
	puts("STERNA-GUEST-READY");
	for (;;) {
		socklen_t length = sizeof peer;
		ssize_t got = recvfrom(fd, word, sizeof word - 1, 0, (struct sockaddr *)&peer, &length);
		if (got < 0)
			continue;
		word[got] = 0;
		obey(word);
		sendto(fd, answer, status(answer, sizeof answer), 0, (struct sockaddr *)&peer, length);
	}
}

static void open_disks(void)
{
	for (char letter = 'a'; letter < 'a' + MAX_DISKS; letter++) {
		struct disk *disk = &disks[disk_count];
		char path[16];
		uint64_t bytes = 0;
		snprintf(disk->name, sizeof disk->name, "vd%c", letter);
		snprintf(path, sizeof path, "/dev/%s", disk->name);
		disk->fd = open(path, O_RDWR | O_DIRECT);
		if (disk->fd < 0)
			continue;
		if (ioctl(disk->fd, BLKGETSIZE64, &bytes) || bytes < UNIT) {
			report("%s: no usable size", disk->name);
			atomic_fetch_add(&disk->io_errors, 1);
			continue;
		}
		disk->units = (bytes < disk_mib << 20 ? bytes : disk_mib << 20) / UNIT;
		disk->generation = calloc(disk->units, sizeof *disk->generation);
		disk_count++;
	}
}

static void read_settings(void)
{
	static char line[4096];
	int fd = open("/proc/cmdline", O_RDONLY);
	ssize_t got = fd < 0 ? 0 : read(fd, line, sizeof line - 1);
	line[got > 0 ? got : 0] = 0;
	for (char *word = strtok(line, " \n"); word; word = strtok(NULL, " \n")) {
		sscanf(word, "sterna.rate=%lu", &rate_mib);
		sscanf(word, "sterna.tick=%lu", &tick_ms);
		sscanf(word, "sterna.area=%lu", &area_mib);
		sscanf(word, "sterna.blocks=%lu", &blocks_per_s);
		sscanf(word, "sterna.disk=%lu", &disk_mib);
		if (!strcmp(word, "sterna.probe")) {
			puts("STERNA-GUEST-READY");
			reboot(RB_POWER_OFF);
		}
	}
	if (!blocks_per_s)
		blocks_per_s = 1;
}

static void read_boot_id(void)
{
	FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
	if (!file || fscanf(file, "%63s", boot_id) != 1)
		strcpy(boot_id, "unknown");
	boot_nonce = strtoull(boot_id, NULL, 16) << 32 ^ strtoull(boot_id + 24, NULL, 16);
}

int main(void)
{
	pthread_t thread;
	setvbuf(stdout, NULL, _IOLBF, 0);
	read_settings();
	read_boot_id();
	open_disks();
	pthread_create(&thread, NULL, memory_main, NULL);
	pthread_create(&thread, NULL, tick_main, NULL);
	for (int i = 0; i < disk_count; i++)
		pthread_create(&thread, NULL, disk_main, &disks[i]);
	serve();
	return 1;
}
