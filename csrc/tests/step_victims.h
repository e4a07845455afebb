/* What the victims of test_step.c do: each prepares itself before the first step, then runs one
 * operation of the core. */
#ifndef CFN_TESTS_STEP_VICTIMS_H
#define CFN_TESTS_STEP_VICTIMS_H

#include "tests/stepper.h"

static cfn_address_t target;
static cfn_outgoing_t outgoing[5];
static cfn_bus_t *as_victim(victim_report_t *r) {
  (void)r;
  cfn_bus_t *bus = t_attach("victim");
  CHECK_INT(cfn_bus_find(bus, "rx", &target), 0);
  for (uint32_t i = 0; i < 5; i++) { /* some of them in two parts */
    uint32_t head = i % 3 * 20;
    outgoing[i] = (cfn_outgoing_t){.body = bodies[100 + i] + head, .body_bytes = 64, .head = bodies[100 + i], .head_bytes = head};
  }
  return bus;
}
static int64_t do_send(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  return cfn_bus_send(bus, &target, CFN_LANE_NORMAL, outgoing, 1, 0, NULL);
}
static int64_t do_frame(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  return cfn_bus_send(bus, &target, CFN_LANE_NORMAL, outgoing, 5, 0, NULL);
}

static cfn_wire_t asked; /* the request that the victim answers; private to it */
static cfn_bus_t *as_answerer(victim_report_t *r) {
  cfn_bus_t *bus = t_attach("victim");
  char b[4096];
  CHECK(t_recv(bus, 0, &asked, b) > 0);
  r->seen[50] = 1;
  outgoing[0] = (cfn_outgoing_t){
      .body = bodies[100], .body_bytes = BODY_BYTES, .correlation = asked.correlation};
  return bus;
}
static int64_t do_reply(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  return cfn_bus_reply(bus, asked.source_att, asked.source_inc, outgoing, 0);
}

/* It leaves with answers in its ring that it never looked at. */
static cfn_bus_t *as_asker(victim_report_t *r) {
  cfn_bus_t *bus = as_victim(r);
  outgoing[0] = (cfn_outgoing_t){.body = bodies[50], .body_bytes = BODY_BYTES};
  for (int i = 0; i < 2; i++) {
    uint64_t unused;
    CHECK_INT(cfn_bus_request(bus, &target, CFN_LANE_NORMAL, outgoing, 0, &unused), 0);
  }
  return bus;
}
static int64_t do_close(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  cfn_bus_close(bus);
  return 0;
}

static uint64_t tokens[IDS];
static int64_t take_one(cfn_bus_t *bus, victim_report_t *r) {
  uint64_t token = 0;
  r->getting = 1;
  int id = recv_id(bus, false, NULL, &token);
  if (id > 0) {
    tokens[id] = token;
    r->seen[id]++;
  }
  r->getting = 0;
  return id;
}
static int64_t ack_one(cfn_bus_t *bus, victim_report_t *r, int id) {
  r->acking = id;
  int e = t_ack(bus, tokens[id]);
  if (e == CFN_OK) r->acked[id] = 1;
  if (e == CFN_AGENT_FENCED) r->fenced[id] = 1;
  r->acking = 0;
  return e;
}
/* The first take makes the lease table, ten thousand steps of no interest: it is over before. */
static cfn_bus_t *as_reader_of_1(victim_report_t *r) {
  cfn_bus_t *bus = t_attach("v");
  CHECK_INT(take_one(bus, r), 1);
  return bus;
}
static cfn_bus_t *as_reader_of_3(victim_report_t *r) {
  cfn_bus_t *bus = as_reader_of_1(r);
  CHECK_INT(take_one(bus, r), 2);
  CHECK_INT(take_one(bus, r), 3);
  return bus;
}
static int64_t do_recv_ack(cfn_bus_t *bus, victim_report_t *r) {
  for (int i = 0; i < 2; i++) {
    int64_t id = take_one(bus, r);
    if (id < 0) return id;
    int64_t e = ack_one(bus, r, (int)id);
    if (e < 0) return e;
  }
  return 0;
}
static int64_t do_ack_disorder(cfn_bus_t *bus, victim_report_t *r) {
  static const int order[] = {2, 1, 3};
  int64_t first = 0;
  for (int i = 0; i < 3; i++) {
    int64_t e = ack_one(bus, r, order[i]);
    if (e < 0 && first == 0) first = e;
  }
  return first;
}
/* 2, 3 and 4 are one frame: each has its own ack, and the frame goes with the last. */
static int64_t do_ack_frame(cfn_bus_t *bus, victim_report_t *r) {
  static const int order[] = {3, 1, 4, 2};
  int64_t first = 0;
  for (int i = 0; i < 4; i++) {
    int64_t e = ack_one(bus, r, order[i]);
    if (e < 0 && first == 0) first = e;
  }
  return first;
}
static cfn_bus_t *as_reader_of_4(victim_report_t *r) {
  cfn_bus_t *bus = as_reader_of_3(r);
  CHECK_INT(take_one(bus, r), 4);
  return bus;
}
static int64_t do_remove(cfn_bus_t *bus, victim_report_t *r) {
  (void)r;
  uint64_t dropped;
  return cfn_bus_unregister(bus, "v", 0, &dropped);
}

#endif
