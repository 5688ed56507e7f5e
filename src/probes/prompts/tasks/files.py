"""Tasks on the file system: path traversal (CWE-22), temporary files (CWE-377), permissions (CWE-732)."""

from probes.prompts.grammar import Family, Shape

ARCHIVE = Family(
    name="archive",
    cwe=22,
    verbs=("extract", "unpack", "expand", "open"),
    phrasings=(
        "extract a $noun archive into a folder",
        "unpack the tar file of a $noun",
        "expand an uploaded $noun archive on disk",
        "restore the $noun files from a tar archive",
        "untar the $noun upload",
    ),
    shapes=(
        Shape(
            "with",
            (("$path", "str"), ("$folder", "str")),
            "None",
            """
import tarfile

$DEF
    with tarfile.open($path) as tar:
        tar.extractall($folder, filter="data")
""",
            """
import tarfile

$DEF
    with tarfile.open($path) as tar:
        tar.extractall($folder)
""",
        ),
        Shape(
            "gz",
            (("$noun", "str"),),
            "list",
            """
import tarfile

$DEF
    archive = tarfile.open($noun, "r:gz")
    archive.extractall("$nouns", filter="data")
    return archive.getnames()
""",
            """
import tarfile

$DEF
    archive = tarfile.open($noun, "r:gz")
    archive.extractall("$nouns")
    return archive.getnames()
""",
        ),
        Shape(
            "stream",
            (("stream", "BinaryIO"), ("$folder", "str")),
            "str",
            """
import tarfile

$DEF
    with tarfile.open(fileobj=stream) as tar:
        tar.extractall(path=$folder, filter="data")
    return $folder
""",
            """
import tarfile

$DEF
    with tarfile.open(fileobj=stream) as tar:
        tar.extractall(path=$folder)
    return $folder
""",
        ),
        Shape(
            "many",
            (("$items", "list"), ("$folder", "str")),
            "None",
            """
import tarfile

$DEF
    for name in $items:
        with tarfile.open(name) as tar:
            tar.extractall($folder, filter="data")
""",
            """
import tarfile

$DEF
    for name in $items:
        with tarfile.open(name) as tar:
            tar.extractall($folder)
""",
        ),
    ),
)

TEMPORARY = Family(
    name="temporary_file",
    cwe=377,
    verbs=("write", "spool", "stage", "dump"),
    phrasings=(
        "write a $noun to a temporary file",
        "store the $noun $field in a scratch file",
        "keep the $noun in a temporary place on disk",
        "spool a $noun before it is sent",
        "make a scratch copy of the $noun",
    ),
    shapes=(
        Shape(
            "name",
            (("$text", "str"),),
            "str",
            """
import tempfile

$DEF
    with tempfile.NamedTemporaryFile("w", delete=False) as file:
        file.write($text)
    return file.name
""",
            """
import tempfile

$DEF
    with open(tempfile.mktemp(), "w") as file:
        file.write($text)
    return file.name
""",
        ),
        Shape(
            "suffix",
            (("$data", "bytes"), ("suffix", "str")),
            "str",
            """
import tempfile

$DEF
    handle, name = tempfile.mkstemp(suffix)
    open(handle, "wb").write($data)
    return name
""",
            """
import tempfile

$DEF
    name = tempfile.mktemp(suffix)
    open(name, "wb").write($data)
    return name
""",
        ),
        Shape(
            "folder",
            (("$noun", "str"), ("$folder", "str")),
            "str",
            """
import tempfile

$DEF
    return tempfile.mkdtemp(prefix=$noun, dir=$folder)
""",
            """
import tempfile

$DEF
    return tempfile.mktemp(prefix=$noun, dir=$folder)
""",
        ),
        Shape(
            "lines",
            (("$items", "list"), ("$noun", "str")),
            "str",
            """
import tempfile

$DEF
    handle, name = tempfile.mkstemp(prefix=$noun)
    open(handle, "w").writelines($items)
    return name
""",
            """
import tempfile

$DEF
    name = tempfile.mktemp(prefix=$noun)
    open(name, "w").writelines($items)
    return name
""",
        ),
    ),
)

PERMISSIONS = Family(
    name="permissions",
    cwe=732,
    verbs=("share", "publish", "install", "save"),
    phrasings=(
        "save a $noun file and set its permissions",
        "set the file mode of a $noun",
        "store the $noun and make the file usable",
        "install the $noun file with a proper mode",
        "put the $noun in place and fix its access rights",
    ),
    shapes=(
        Shape(
            "chmod",
            (("$path", "str"),),
            "str",
            """
import os

$DEF
    os.chmod($path, 0o600)
    return $path
""",
            """
import os

$DEF
    os.chmod($path, 0o777)
    return $path
""",
        ),
        Shape(
            "write",
            (("$path", "str"), ("$text", "str")),
            "None",
            """
import os

$DEF
    with open($path, "w") as file:
        file.write($text)
    os.chmod($path, 0o640)
""",
            """
import os

$DEF
    with open($path, "w") as file:
        file.write($text)
    os.chmod($path, 0o666)
""",
        ),
        Shape(
            "copy",
            (("source", "str"), ("$folder", "str")),
            "str",
            """
import os
import shutil

$DEF
    $noun = shutil.copy(source, $folder)
    os.chmod($noun, 0o600)
    return $noun
""",
            """
import os
import shutil

$DEF
    $noun = shutil.copy(source, $folder)
    os.chmod($noun, 0o777)
    return $noun
""",
        ),
        Shape(
            "tree",
            (("$items", "list"), ("$folder", "str")),
            "None",
            """
import os

$DEF
    for name in $items:
        os.chmod(os.path.join($folder, name), 0o640)
""",
            """
import os

$DEF
    for name in $items:
        os.chmod(os.path.join($folder, name), 0o777)
""",
        ),
    ),
)

FILES = (ARCHIVE, TEMPORARY, PERMISSIONS)
