"""CPU time is taken from the account that can be trusted; memory alone leaves outside sharers out."""

from __future__ import annotations

import os

from tests.bench.measure import CpuTime, alone, cpu_time, pss, pss_alone, spent, tree

MS = 1_000_000


def mapping(inode: int, rss: int, shared_by: int, anonymous: int = 0) -> str:
    """One mapping as /proc tells it, in kB; what is not anonymous is mapped by `shared_by` processes."""
    share = (rss - anonymous) // shared_by + anonymous
    return (
        f"7f0000000000-7f0000100000 r-xp 00000000 08:01 {inode}    /usr/bin/a proxy\n"
        f"Rss: {rss} kB\nPss: {share} kB\nAnonymous: {anonymous} kB\nVmFlags: rd ex mr\n"
    )


def test_the_exact_account_is_taken_when_both_agree():
    before, after = CpuTime(100 * MS, 104 * MS, 1), CpuTime(1100 * MS, 1107 * MS, 1)
    assert spent(before, after) == (1003 * MS, "schedstat")


def test_the_whole_account_is_taken_when_a_thread_took_its_time_with_it():
    before, after = CpuTime(100 * MS, 900 * MS, 1), CpuTime(1100 * MS, 1000 * MS, 1)
    assert spent(before, after) == (1000 * MS, "stat")


def test_the_whole_account_is_taken_when_the_kernel_keeps_no_other():
    assert spent(CpuTime(0, 0, 1), CpuTime(20 * MS, 0, 1)) == (20 * MS, "stat")


def test_pages_of_a_file_that_strangers_map_count_whole():
    assert alone([mapping(7, rss=1000, shared_by=4)]) == 1000 * 1024


def test_pages_that_only_the_tree_maps_count_once():
    assert alone([mapping(7, rss=1000, shared_by=2), mapping(7, rss=1000, shared_by=2)]) == 1000 * 1024


def test_written_pages_and_pages_without_a_file_count_as_they_are():
    text = mapping(7, rss=1000, shared_by=4, anonymous=200) + mapping(0, rss=300, shared_by=2)
    assert alone([text]) == (1000 + 150) * 1024


def test_a_process_that_ended_has_no_memory():
    assert alone([""]) == 0


def test_this_process_can_be_measured():
    pid = os.getpid()
    assert pid in tree(pid)
    assert cpu_time(pid).ticks >= 0
    assert 0 < pss(pid) <= 1.1 * pss_alone(pid)
