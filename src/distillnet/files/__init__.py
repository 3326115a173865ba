"""Writing so that nothing half-written stands under a final name; reading what anybody wrote.

| module | does |
|---|---|
| ``writing`` | ``new_folder`` and ``new_file``: what commands use |
| ``layout`` | which files of a folder a command writes, and which are the user's |
| ``carry`` | taking the user's files along when a folder is replaced |
| ``workplace`` | the hidden folder beside a result: its lock, what a killed process left there |
| ``disk`` | exchanging, and waiting until what is written would survive a power cut |
| ``results`` | the files of runs, atlases and folders of C |
| ``tensors`` | safetensors files |
| ``regular`` | reading: regular files only, no more of them than is expected |
| ``documents`` | JSON against a schema |
| ``manifest`` | hashes of what a command wrote |

A result is made in a hidden workplace beside its final name. When it is whole and on the disk, and
the user's files in the folder that stands there have been linked into it, both change places in one
step. What a killed process leaves, in whatever moment, is finished or removed by the next that
writes there.
"""

from distillnet.files.layout import Layout
from distillnet.files.writing import check_writable, new_file, new_folder

__all__ = ["Layout", "check_writable", "new_file", "new_folder"]
