import pytest
from pyfakefs.fake_filesystem import FakeFilesystem

from topicd.drop import NotATopic, read
from topicd.errors import Rejected


def test_a_file_is_read_under_its_name(fs: FakeFilesystem) -> None:
    fs.create_file("/home/ana/Tides.md", contents="# Tides\n")
    assert read("/home/ana/Tides.md", 100) == (b"# Tides\n", "Tides.md")


@pytest.mark.parametrize(("name", "dropped"), [(".notes.md", "notes.md"), ("~$x.md", "x.md"), ("README", "README.md")])
def test_a_name_the_daemon_would_leave_alone_is_changed(fs: FakeFilesystem, name: str, dropped: str) -> None:
    fs.create_file(f"/home/ana/{name}", contents="words")
    assert read(f"/home/ana/{name}", 100)[1] == dropped


def test_a_directory_is_no_topic(fs: FakeFilesystem) -> None:
    fs.create_dir("/home/ana/topics")
    with pytest.raises(NotATopic):
        read("/home/ana/topics", 100)


def test_a_file_of_too_many_bytes_is_refused(fs: FakeFilesystem) -> None:
    fs.create_file("/home/ana/long.md", contents="x" * 101)
    with pytest.raises(Rejected) as caught:
        read("/home/ana/long.md", 100)
    assert caught.value.cause == "topic_too_large"
