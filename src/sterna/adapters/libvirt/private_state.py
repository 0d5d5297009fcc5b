"""NVRAM and TPM state in libvirt's own folders, of a VM that libvirt does not define: it removes them with a
definition only. Blocking."""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass

from sterna.domain.model import StateFile
from sterna.domain.state_files import NVRAM_FOLDER, TPM_FOLDER

ELSEWHERE = "it is not in libvirt's own folder"


@dataclass(frozen=True)
class StateFolders:
    """Where libvirt keeps state unless a definition names another place."""

    nvram: str = NVRAM_FOLDER
    tpm: str = TPM_FOLDER

    def own(self, uuid: str, state: StateFile) -> bool:
        """Is this in the folder that libvirt chose, and so only this VM's?"""
        if state.kind == "nvram":
            return os.path.dirname(state.path) == self.nvram
        return state.kind == "tpm" and state.path == f"{self.tpm}/{uuid}"

    def remove(self, uuid: str, state: StateFile) -> str:
        """Why it stays; '' once it is gone. No symbolic link is followed."""
        if not self.own(uuid, state):
            return ELSEWHERE
        try:
            mode = os.lstat(state.path).st_mode
            if state.kind == "tpm" and stat.S_ISDIR(mode):
                shutil.rmtree(state.path)
            elif state.kind == "nvram" and stat.S_ISREG(mode):
                os.unlink(state.path)
            else:
                return f"it is not a {'folder' if state.kind == 'tpm' else 'regular file'}"
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"it cannot be removed: {error.strerror}"
        return ""
