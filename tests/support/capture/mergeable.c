/* Holds mergeable memory until it is killed: a stand-in for a guest where there is no Python.
 * 4 MiB equal in every process, 1 MiB zero, 1 MiB of its own; it says "filled" when that is done. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, MIB = 1 << 20, EQUAL = 4 * MIB, ZERO = MIB, OWN = MIB };

int main(void)
{
    char *memory = mmap(NULL, EQUAL + ZERO + OWN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || madvise(memory, EQUAL + ZERO + OWN, MADV_NOHUGEPAGE) ||
        madvise(memory, EQUAL + ZERO + OWN, MADV_MERGEABLE))
        return 1;
    memset(memory, 0, EQUAL + ZERO + OWN);
    for (int64_t page = 0; page < EQUAL / PAGE; page++)
        *(int64_t *)(memory + page * PAGE) = page + 1;
    for (int64_t page = 0; page < OWN / PAGE; page++)
        *(int64_t *)(memory + EQUAL + ZERO + page * PAGE) = (int64_t)getpid() << 32 | (page + 1);
    puts("filled");
    fflush(stdout);
    for (;;)
        pause();
}
