"""Container images without a container engine: an empty root into which volumes bring the rest.

The Python environment of the machine comes by hostPath PersistentVolumes, which Pod Security
`restricted` allows, so that no image repeats gigabytes of libraries.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tarfile
from collections.abc import Sequence
from pathlib import Path

_LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
_FOLDERS = ("dev", "etc", "proc", "sys", "tmp", "usr")
# The user of the images and of Aurora's pods.
USER = 65532
_FILES = {
    "etc/passwd": f"root:x:0:0::/:/sbin/nologin\naurora:x:{USER}:{USER}::/tmp:/sbin/nologin\n",
    "etc/group": f"root:x:0:\naurora:x:{USER}:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}
# mov eax, 34 (pause); syscall; jmp to the beginning: for x86-64.
_PAUSE = bytes.fromhex("b8220000000f05ebf7")
_LOADED_AT = 0x400000


def write_image(path: Path, names: Sequence[str], environment: Sequence[str]) -> None:
    """Writes an archive that `ctr images import` reads, of one image under several names.

    Its command waits for ever, without any library, so that it can be a pause container.
    """
    layer = _layer()
    digest = hashlib.sha256(layer).hexdigest()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"User": str(USER), "Entrypoint": ["/pause"], "Env": list(environment)},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created_by": "tests/node"}],
    }
    manifest = [{"Config": "config.json", "RepoTags": list(names), "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as archive:
        _add(archive, "config.json", json.dumps(config).encode())
        _add(archive, "layer.tar", layer)
        _add(archive, "manifest.json", json.dumps(manifest).encode())


def _layer() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name in _FOLDERS:
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(folder)
        for name, target in _LINKS.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
        for name, text in _FILES.items():
            _add(archive, name, text.encode())
        _add(archive, "pause", _program(_PAUSE), mode=0o755)
    return content.getvalue()


def _program(code: bytes) -> bytes:
    """A static ELF of one segment with this code."""
    header_bytes, segment_bytes = 64, 56
    begin = header_bytes + segment_bytes
    size = begin + len(code)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        *(2, 62, 1, _LOADED_AT + begin),  # executable, x86-64, version, entry
        *(header_bytes, 0, 0),  # program headers, no sections, no flags
        *(header_bytes, segment_bytes, 1, 0, 0, 0),
    )
    # Loaded, readable and executable, from the file's beginning.
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _LOADED_AT, _LOADED_AT, size, size, 0x1000)
    return header + segment + code


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    archive.addfile(member, io.BytesIO(content))
