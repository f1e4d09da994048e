import os
import threading

import pytest

from topicd.inotify import NAMES_MAX, Inbox, _file_system

MOUNTINFO = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
31 22 0:44 / /srv/my\\040topics rw,relatime shared:2 master:1 - nfs4 nas:/export rw,vers=4.2
32 22 0:45 / /mnt/phone rw,nosuid - fuse.sshfs me@phone: rw
torn
"""


class Notified:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def test_many_events_give_one_notification_until_taken() -> None:
    notified = Notified()
    inbox = Inbox(notified)
    for n in range(10_000):
        inbox.put("input", f"{n}.md", moved_in=False)
    assert notified.times == 1
    assert inbox.take() == {"input": {None: None}}
    inbox.put("input", "a.md", moved_in=False)
    assert notified.times == 2


def test_moved_names_are_kept_in_order_and_bounded() -> None:
    inbox = Inbox(Notified())
    for n in range(NAMES_MAX + 5):
        inbox.put("input", f"{n}.md", moved_in=True)
    names = list(inbox.take()["input"])
    assert names == [*(f"{n}.md" for n in range(NAMES_MAX)), None]


def test_a_name_is_forgotten_when_something_else_happens_to_the_file() -> None:
    inbox = Inbox(Notified())
    inbox.put("input", "a.md", moved_in=True)
    inbox.put("input", "b.md", moved_in=True)
    inbox.put("input", "a.md", moved_in=False)
    assert list(inbox.take()["input"]) == ["b.md", None]


def test_a_file_that_moves_in_again_is_whole_again() -> None:
    inbox = Inbox(Notified())
    inbox.put("input", "a.md", moved_in=False)
    inbox.put("input", "a.md", moved_in=True)
    assert list(inbox.take()["input"]) == [None, "a.md"]


def test_nothing_is_lost_between_a_putting_and_a_taking_thread() -> None:
    ready = threading.Semaphore(0)
    inbox = Inbox(ready.release)
    names = [f"{n}.md" for n in range(20_000)]

    def put_all() -> None:
        for name in names:
            inbox.put(name, name, moved_in=True)

    thread = threading.Thread(target=put_all)
    thread.start()
    taken: list[str] = []
    while len(taken) < len(names):
        assert ready.acquire(timeout=10)
        taken += inbox.take()
    thread.join()
    assert taken == names


@pytest.mark.parametrize(
    ("device", "name"),
    [((254, 0), "ext4"), ((0, 44), "nfs4"), ((0, 45), "fuse.sshfs"), ((0, 4), ""), ((9, 9), "")],
)
def test_the_type_of_a_file_system_is_found_by_device_number(device: tuple[int, int], name: str) -> None:
    assert _file_system(os.makedev(*device), MOUNTINFO) == name
