from towline.core.agent.eviction import Copy, Pins, to_evict


def copy(index: int, size_bytes: int, used_ns: int, task: int = 0, job: str = "j") -> Copy:
    return Copy(job=job, task=task, index=index, size_bytes=size_bytes, used_ns=used_ns)


def test_nothing_goes_while_all_fits() -> None:
    assert to_evict([copy(0, 60, 1), copy(1, 40, 2)], Pins(), 100) == []


def test_the_longest_unused_go_until_the_rest_fits() -> None:
    oldest, middle, newest = copy(0, 50, 1), copy(1, 50, 2), copy(2, 50, 3)
    assert to_evict([newest, oldest, middle], Pins(), 100) == [oldest]
    assert to_evict([newest, oldest, middle], Pins(), 99) == [oldest, middle]


def test_what_attempts_have_as_input_stays_even_where_it_is_too_much() -> None:
    needed, of_unknown, free = copy(0, 90, 1), copy(0, 90, 1, job="k"), copy(0, 10, 9, task=1)
    pins = Pins({("j", 0)}, {"k"})
    assert to_evict([needed, of_unknown, free], pins, 20) == [free]


def test_equally_old_ones_go_in_a_fixed_order() -> None:
    same = [copy(index, 10, 5, task=task) for task in (1, 0) for index in (2, 1)]
    assert to_evict(same, Pins(), 0) == sorted(same, key=lambda one: (one.task, one.index))
