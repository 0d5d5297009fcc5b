"""Which absolute paths a text of a definition names."""

from __future__ import annotations

import pytest

from sterna.adapters.libvirt.xml.paths import all_paths, paths_in


@pytest.mark.parametrize(
    "value, paths",
    [
        ("/srv/a.img", ("/srv/a.img",)),
        ("if=none,file=/srv/a.img,format=raw", ("/srv/a.img",)),
        ("if=none,file=/srv/a,,b.img,format=raw", ("/srv/a,b.img",)),
        ("file=/srv/,,,,x,id=/y", ("/srv/,,x", "/y")),
        ("file=/srv/a b.img", ("/srv/a b.img",)),
        ("file=fat:rw:/srv/folder", ("/srv/folder",)),
        ('{"driver": "file", "filename": "/srv/a.img"}', ("/srv/a.img",)),
        ('{"filename": "/srv/\\u00e4,b.img"}', ("/srv/ä,b.img", "/srv/ä")),
        ('{"file": {"filename": "/srv/a.img"}, "more": ["/srv/b", 3, null]}', ("/srv/a.img", "/srv/b")),
        ('json:{"file": {"filename": "/srv/a.img"}}', ("/srv/a.img",)),
        ('file=json:{"filename": "/srv/a.img"}', ("/srv/a.img",)),
        ('{"filename": "/srv/a.img"', ("/srv/a.img",)),
        ("[" * 100_000 + '{"filename": "/srv/a"', ("/srv/a",)),
        ("virtio-blk-pci,drive=x", ()),
        ("http://host/x.iso", ("//host/x.iso",)),
        ("", ()),
    ],
)
def test_paths_of_qemus_arguments(value: str, paths: tuple[str, ...]) -> None:
    assert set(paths) <= set(paths_in(value))


@pytest.mark.parametrize(
    "value, paths",
    [
        ("/srv/a,b.img", {"/srv/a,b.img"}),
        ("/srv/a,,b.img", {"/srv/a,,b.img", "/srv/a,b.img"}),
        ("if=none,file=/srv/a,,b.img", {"/srv/a,b.img"}),
        ('/srv/a"b', {'/srv/a"b'}),
    ],
)
def test_any_text_may_be_a_path_as_it_stands(value: str, paths: set[str]) -> None:
    assert paths <= set(all_paths(value))
