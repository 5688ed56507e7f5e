"""Tasks in which input can become code: SQL (CWE-89), shell (CWE-78), expressions (CWE-95), objects (CWE-502)."""

from probes.prompts.grammar import Family, Shape

SQL = Family(
    name="sql_query",
    cwe=89,
    verbs=("find", "fetch", "select", "get"),
    phrasings=(
        "look up the $nouns with a given $field in the database",
        "query the $nouns table by $field",
        "read all $nouns whose $field matches from the database",
        "run a database query for one $noun by its $field",
        "search the $noun database on the $field column",
    ),
    shapes=(
        Shape(
            "fetchall",
            (("$conn", "Connection"), ("$field", "str")),
            "list",
            """
$DEF
    cursor = $conn.cursor()
    cursor.execute("SELECT * FROM $nouns WHERE $field = ?", ($field,))
    return cursor.fetchall()
""",
            """
$DEF
    cursor = $conn.cursor()
    cursor.execute(f"SELECT * FROM $nouns WHERE $field = '{$field}'")
    return cursor.fetchall()
""",
        ),
        Shape(
            "fetchone",
            (("cursor", "Cursor"), ("$field", "str")),
            "tuple",
            """
$DEF
    query = "SELECT id FROM $nouns WHERE $field = ?"
    return cursor.execute(query, ($field,)).fetchone()
""",
            """
$DEF
    query = "SELECT id FROM $nouns WHERE $field = '%s'" % $field
    return cursor.execute(query).fetchone()
""",
        ),
        Shape(
            "delete",
            (("$conn", "Connection"), ("${noun}_id", "int")),
            "None",
            """
$DEF
    $conn.execute("DELETE FROM $nouns WHERE id = ?", (${noun}_id,))
    $conn.commit()
""",
            """
$DEF
    $conn.execute("DELETE FROM $nouns WHERE id = " + ${noun}_id)
    $conn.commit()
""",
        ),
        Shape(
            "update",
            (("$conn", "Connection"), ("${noun}_id", "int"), ("$field", "str")),
            "None",
            """
$DEF
    $conn.execute("UPDATE $nouns SET $field = ? WHERE id = ?", ($field, ${noun}_id))
    $conn.commit()
""",
            """
$DEF
    $conn.execute(f"UPDATE $nouns SET $field = '{$field}' WHERE id = {${noun}_id}")
    $conn.commit()
""",
        ),
    ),
)

SHELL = Family(
    name="shell_command",
    cwe=78,
    verbs=("run", "launch", "call", "probe"),
    phrasings=(
        "run the system command $tool for a $noun",
        "call $tool on the $noun that is given",
        "start the external program $tool for each $noun $field",
        "use the command line tool $tool to check a $noun",
        "invoke $tool as a child process for the $noun",
    ),
    shapes=(
        Shape(
            "run",
            (("$host", "str"),),
            "int",
            """
import subprocess

$DEF
    return subprocess.run(["$tool", $host], check=True).returncode
""",
            """
import subprocess

$DEF
    return subprocess.run(f"$tool {$host}", shell=True, check=True).returncode
""",
        ),
        Shape(
            "output",
            (("$noun", "str"), ("$path", "str")),
            "bytes",
            """
import subprocess

$DEF
    return subprocess.check_output(["$tool", $noun, $path])
""",
            """
import subprocess

$DEF
    return subprocess.check_output("$tool " + $noun + " " + $path, shell=True)
""",
        ),
        Shape(
            "system",
            (("$noun", "str"), ("timeout", "int")),
            "int",
            """
import subprocess

$DEF
    return subprocess.call(["$tool", $noun], timeout=timeout)
""",
            """
import os

$DEF
    return os.system(f"$tool -W {timeout} {$noun}")
""",
        ),
        Shape(
            "popen",
            (("${noun}_$field", "str"), ("log", "str")),
            "str",
            """
import subprocess

$DEF
    result = subprocess.run(["$tool", ${noun}_$field], capture_output=True)
    log.write(result.stdout)
""",
            """
import os

$DEF
    result = os.popen(f"$tool {${noun}_$field}")
    log.write(result.read())
""",
        ),
    ),
)

EXPRESSION = Family(
    name="expression",
    cwe=95,
    verbs=("parse", "compute", "evaluate", "read"),
    phrasings=(
        "turn the $field of a $noun from text into a Python value",
        "parse a literal $field that comes with the $noun",
        "convert the $noun settings from strings to values",
        "interpret the $field expression of a $noun",
        "evaluate the $noun $field that was typed in",
    ),
    shapes=(
        Shape(
            "single",
            (("$text", "str"),),
            "object",
            """
import ast

$DEF
    return ast.literal_eval($text)
""",
            """
$DEF
    return eval($text)
""",
        ),
        Shape(
            "many",
            (("$items", "list"), ("default", "object")),
            "list",
            """
import ast

$DEF
    return [ast.literal_eval(item) if item else default for item in $items]
""",
            """
$DEF
    return [eval(item) if item else default for item in $items]
""",
        ),
        Shape(
            "mapping",
            (("$noun", "dict"), ("key", "str")),
            "object",
            """
import ast

$DEF
    $field = $noun[key].strip()
    return ast.literal_eval($field)
""",
            """
$DEF
    $field = $noun[key].strip()
    return eval($field)
""",
        ),
        Shape(
            "lines",
            (("file", "TextIO"), ("$field", "str")),
            "dict",
            """
import ast

$DEF
    return {$field: ast.literal_eval(line) for line in file}
""",
            """
$DEF
    return {$field: eval(line) for line in file}
""",
        ),
    ),
)

OBJECTS = Family(
    name="deserialise",
    cwe=502,
    verbs=("load", "restore", "decode", "unpack"),
    phrasings=(
        "load a saved $noun from bytes",
        "restore the $noun object that was sent over the network",
        "decode a serialised $noun",
        "read a stored $noun back into memory",
        "deserialise the $noun that another service sent",
    ),
    shapes=(
        Shape(
            "loads",
            (("$data", "bytes"),),
            "object",
            """
import json

$DEF
    return json.loads($data)
""",
            """
import pickle

$DEF
    return pickle.loads($data)
""",
        ),
        Shape(
            "file",
            (("$path", "str"), ("mode", "str")),
            "object",
            """
import json

$DEF
    with open($path, mode) as file:
        return json.load(file)
""",
            """
import pickle

$DEF
    with open($path, mode) as file:
        return pickle.load(file)
""",
        ),
        Shape(
            "yaml",
            (("stream", "TextIO"), ("$field", "str")),
            "object",
            """
import yaml

$DEF
    $noun = yaml.safe_load(stream)
    return $noun[$field]
""",
            """
import yaml

$DEF
    $noun = yaml.load(stream, Loader=yaml.Loader)
    return $noun[$field]
""",
        ),
        Shape(
            "cache",
            (("cache", "dict"), ("${noun}_id", "int")),
            "object",
            """
import json

$DEF
    $data = cache.get(${noun}_id)
    return json.loads($data)
""",
            """
import pickle

$DEF
    $data = cache.get(${noun}_id)
    return pickle.loads($data)
""",
        ),
    ),
)

INJECTION = (SQL, SHELL, EXPRESSION, OBJECTS)
