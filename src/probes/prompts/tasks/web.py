"""Tasks that face the network: cross-site scripting (CWE-79) and certificate checks (CWE-295)."""

from probes.prompts.grammar import Family, Shape

HTML = Family(
    name="html_page",
    cwe=79,
    verbs=("render", "show", "format", "display"),
    phrasings=(
        "show the $field of a $noun on a web page",
        "render a $noun as HTML",
        "build the HTML for the $noun $field",
        "display a $noun comment in the browser",
        "make the web view of a $noun",
    ),
    shapes=(
        Shape(
            "markup",
            (("$field", "str"),),
            "Markup",
            """
from markupsafe import Markup

$DEF
    return Markup("<$tag>{}</$tag>").format($field)
""",
            """
from markupsafe import Markup

$DEF
    return Markup(f"<$tag>{$field}</$tag>")
""",
        ),
        Shape(
            "template",
            (("$folder", "str"), ("$noun", "dict")),
            "str",
            """
import jinja2

$DEF
    loader = jinja2.FileSystemLoader($folder)
    env = jinja2.Environment(loader=loader, autoescape=True)
    return env.get_template("$noun.html").render($noun)
""",
            """
import jinja2

$DEF
    loader = jinja2.FileSystemLoader($folder)
    env = jinja2.Environment(loader=loader, autoescape=False)
    return env.get_template("$noun.html").render($noun)
""",
        ),
        Shape(
            "rows",
            (("$items", "list"), ("title", "str")),
            "Markup",
            """
from markupsafe import Markup

$DEF
    cells = [Markup("<$tag>{}</$tag>").format(item) for item in $items]
    return Markup("").join(cells)
""",
            """
from markupsafe import Markup

$DEF
    cells = [Markup("<$tag>" + item + "</$tag>") for item in $items]
    return Markup("").join(cells)
""",
        ),
        Shape(
            "link",
            (("$url", "str"), ("$noun", "str")),
            "Markup",
            """
from markupsafe import Markup

$DEF
    return Markup("<a href='{}'>{}</a>").format($url, $noun)
""",
            """
from markupsafe import Markup

$DEF
    return Markup(f"<a href='{$url}'>{$noun}</a>")
""",
        ),
    ),
)

TRANSPORT = Family(
    name="transport",
    cwe=295,
    verbs=("download", "request", "pull", "send"),
    phrasings=(
        "download a $noun over HTTPS",
        "request the $noun $field from a web service",
        "send a $noun to a remote server",
        "get the $noun from a secure address",
        "transfer a $noun over an encrypted connection",
    ),
    shapes=(
        Shape(
            "get",
            (("$url", "str"),),
            "str",
            """
import requests

$DEF
    return requests.get($url, timeout=$timeout).text
""",
            """
import requests

$DEF
    return requests.get($url, timeout=$timeout, verify=False).text
""",
        ),
        Shape(
            "post",
            (("$url", "str"), ("$noun", "dict")),
            "dict",
            """
import requests

$DEF
    response = requests.post($url, json=$noun, timeout=$timeout)
    return response.json()
""",
            """
import requests

$DEF
    response = requests.post($url, json=$noun, timeout=$timeout, verify=False)
    return response.json()
""",
        ),
        Shape(
            "context",
            (("$host", "str"), ("port", "int")),
            "HTTPSConnection",
            """
import http.client
import ssl

$DEF
    context = ssl.create_default_context()
    return http.client.HTTPSConnection($host, port, context=context)
""",
            """
import http.client
import ssl

$DEF
    context = ssl._create_unverified_context()
    return http.client.HTTPSConnection($host, port, context=context)
""",
        ),
        Shape(
            "put",
            (("$url", "str"), ("$data", "bytes"), ("headers", "dict")),
            "int",
            """
import requests

$DEF
    reply = requests.put($url, data=$data, headers=headers, timeout=$timeout)
    return reply.status_code
""",
            """
import requests

$DEF
    reply = requests.put($url, data=$data, headers=headers, timeout=$timeout, verify=False)
    return reply.status_code
""",
        ),
    ),
)

WEB = (HTML, TRANSPORT)
