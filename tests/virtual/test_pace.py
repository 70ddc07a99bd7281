"""Loops whose parts go to whichever thread is free: on a virtual board all threads get their share, however busy this machine is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.program import run_program

PI4 = load_board("pi4")
TRIPS, ROUNDS, PARTS, TEAM = 50_000, 8, 16, 4  # a trip takes a cycle
SOURCE = r"""
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>
enum { TEAM = 4, ROUNDS = 8, PARTS = 16, TRIPS = 50000 };
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static atomic_int round_begun, next_part[ROUNDS + 1], parts_done[ROUNDS + 1];
static int sleeps;
static void spin(long trips) { __asm__ volatile("1: subs %0, %0, #1\n b.ne 1b" : "+r"(trips)::"cc"); }
static void wait_until(atomic_int *number, int least)
{
    if (sleeps) pthread_mutex_lock(&mutex);
    while (atomic_load_explicit(number, memory_order_acquire) < least)
        if (sleeps) pthread_cond_wait(&changed, &mutex);
    if (sleeps) pthread_mutex_unlock(&mutex);
}
static void raise_to(atomic_int *number, int by)
{
    if (sleeps) pthread_mutex_lock(&mutex);
    atomic_fetch_add(number, by);
    if (sleeps) { pthread_cond_broadcast(&changed); pthread_mutex_unlock(&mutex); }
}
static void work(int round)
{
    int done = 0;
    while (atomic_fetch_add(&next_part[round], 1) < PARTS) { spin(TRIPS); done++; }
    if (done) raise_to(&parts_done[round], done);
}
static void *member(void *unused)
{
    for (int round = 1; round <= ROUNDS; round++) { wait_until(&round_begun, round); work(round); }
    return unused;
}
int main(int argc, char **argv)
{
    pthread_t others[TEAM];
    sleeps = argc > 1 && !strcmp(argv[1], "sleeping");
    for (int i = 1; i < TEAM; i++) pthread_create(&others[i], 0, member, 0);
    usleep(20000);
    prctl(0x7a110001, 0, 0, 0, 0);
    for (int round = 1; round <= ROUNDS; round++) { raise_to(&round_begun, 1); work(round); wait_until(&parts_done[round], PARTS); }
    prctl(0x7a110002, 0, 0, 0, 0);
    for (int i = 1; i < TEAM; i++) pthread_join(others[i], 0);
    return 0;
}
"""


@pytest.mark.virtual
@pytest.mark.parametrize("mode", ["spinning", "sleeping"])
def test_parts_go_to_whoever_would_be_free_on_the_board(tmp_path: Path, mode: str) -> None:
    source, program = tmp_path / "program.c", tmp_path / "program"
    source.write_text(SOURCE, encoding="ascii")
    subprocess.run(["aarch64-linux-gnu-gcc", "-O1", "-pthread", str(source), "-o", str(program)], check=True)
    for _ in range(4):
        run = run_program(PI4, [str(program), mode], threads=TEAM).modelled
        parts = run.term_ms["core"] * 1e-3 * PI4.clock_hz / TRIPS
        assert parts == pytest.approx(ROUNDS * PARTS / TEAM, rel=0.01)
        assert min(run.busy_ms) == pytest.approx(max(run.busy_ms), rel=0.01)
