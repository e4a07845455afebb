/* close_range(3, ~0): the process loses its lock descriptors AND the region's directory descriptor, by
 * which cfn_life_refresh reopens the life file: EBADF, reported as CFN_OK, and the byte stays free for
 * ever. If the number was reused for another directory, the life file is even made there. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/liveness.h"
#include "tests/harness.h"
int main(void) {
  t_guard(20);
  cfn_bus_t *a = t_open("a", NULL);
  int tell[2], ask[2];
  CHECK_INT(pipe(tell), 0);
  CHECK_INT(pipe(ask), 0);
  pid_t p = t_fork();
  if (p == 0) {
    dup2(tell[1], 1);
    dup2(ask[0], 0);
    cfn_bus_t *b = t_attach("b");
    uint32_t slot = cfn_bus_attachment(b);
    close_range(3, ~0u, 0);
    int r = cfn_life_refresh(cfn_bus_region(b), slot);
    (void)!write(1, &slot, 4);
    (void)!write(1, &r, 4);
    char c;
    (void)!read(0, &c, 1);
    _exit(0);
  }
  uint32_t slot;
  int r;
  CHECK_INT(read(tell[0], &slot, 4), 4);
  CHECK_INT(read(tell[0], &r, 4), 4);
  bool free_byte;
  CHECK_INT(cfn_life_of(cfn_bus_region(a), slot, NULL, &free_byte), CFN_LIFE_ALIVE);
  fprintf(stderr, "refresh said %d, byte free: %d\n", r, free_byte);
  kill(p, SIGKILL);
  waitpid(p, NULL, 0);
  t_close(a);
  t_destroy();
  if (free_byte) return 1;
  t_passed("bug_closed_directory");
  return 0;
}
