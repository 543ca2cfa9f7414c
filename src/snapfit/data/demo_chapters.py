"""Which modules of the standard library belong to which chapter of the Library Reference: the demo's labels.

Chosen so that importing a module does nothing but define names, that its docstrings are written for people,
and that the chapter is there on every common build of Python 3.10 and later: no GUI, no terminal line editing
and nothing that a later version removed. Chapters with fewer than a hundred docstrings are left out or joined
to a neighbour.
"""

CHAPTERS: dict[str, str] = {
    "builtins": "builtins",
    "text": """
        string re difflib textwrap unicodedata stringprep struct codecs encodings encodings.idna gettext
        locale""",
    "data-types": """
        datetime zoneinfo calendar collections collections.abc heapq bisect array weakref types copy
        pprint reprlib enum graphlib""",
    "mathematics": "numbers math cmath decimal fractions random statistics itertools functools operator",
    "files": "pathlib os.path fileinput stat filecmp tempfile glob fnmatch linecache shutil",
    "storage": """
        pickle copyreg shelve marshal dbm dbm.dumb sqlite3 sqlite3.dbapi2 csv configparser tomllib netrc
        plistlib zlib gzip bz2 lzma zipfile tarfile""",
    "operating-system": """
        os io time argparse optparse getopt logging logging.config logging.handlers getpass curses
        curses.ascii curses.textpad curses.panel platform errno ctypes ctypes.util pwd
        grp termios tty pty fcntl resource""",
    "concurrency": """
        threading multiprocessing multiprocessing.shared_memory multiprocessing.managers
        multiprocessing.pool multiprocessing.connection multiprocessing.context multiprocessing.process
        multiprocessing.queues multiprocessing.synchronize multiprocessing.sharedctypes
        multiprocessing.heap multiprocessing.util multiprocessing.reduction
        multiprocessing.resource_tracker multiprocessing.resource_sharer multiprocessing.forkserver
        multiprocessing.spawn multiprocessing.dummy concurrent.futures concurrent.futures.thread
        concurrent.futures.process subprocess sched queue contextvars""",
    "networking": """
        asyncio asyncio.base_events asyncio.base_futures asyncio.base_subprocess asyncio.base_tasks
        asyncio.coroutines asyncio.events asyncio.exceptions asyncio.format_helpers asyncio.futures
        asyncio.locks asyncio.mixins asyncio.proactor_events asyncio.protocols asyncio.queues
        asyncio.runners asyncio.selector_events asyncio.sslproto asyncio.staggered asyncio.streams
        asyncio.subprocess asyncio.taskgroups asyncio.tasks asyncio.threads asyncio.timeouts
        asyncio.transports asyncio.trsock asyncio.unix_events socket ssl select selectors signal mmap""",
    "internet-data": """
        email email.message email.parser email.feedparser email.generator email.policy email.errors
        email.headerregistry email.contentmanager email.mime.application email.mime.audio
        email.mime.base email.mime.image email.mime.message email.mime.multipart email.mime.nonmultipart
        email.mime.text email.header email.charset email.encoders email.utils email.iterators
        email.base64mime email.quoprimime json json.decoder json.encoder json.scanner json.tool mailbox
        mimetypes base64 binascii quopri""",
    "markup": """
        html html.parser html.entities xml xml.etree.ElementTree xml.etree.ElementInclude
        xml.etree.ElementPath xml.dom xml.dom.minidom xml.dom.pulldom xml.dom.domreg
        xml.dom.expatbuilder xml.dom.minicompat xml.dom.xmlbuilder xml.dom.NodeFilter xml.sax
        xml.sax.handler xml.sax.saxutils xml.sax.xmlreader xml.sax.expatreader xml.parsers.expat""",
    "protocols": """
        webbrowser wsgiref wsgiref.util wsgiref.headers wsgiref.simple_server wsgiref.validate
        wsgiref.handlers urllib urllib.request urllib.response urllib.parse urllib.error
        urllib.robotparser http http.client ftplib poplib imaplib smtplib uuid socketserver http.server
        http.cookies http.cookiejar xmlrpc xmlrpc.client xmlrpc.server ipaddress""",
    "development": """
        typing pydoc doctest unittest unittest.case unittest.suite unittest.loader unittest.main
        unittest.runner unittest.result unittest.signals unittest.util unittest.async_case unittest.mock
        venv zipapp""",
    "debugging": "bdb faulthandler pdb timeit trace tracemalloc cProfile profile pstats",
    "runtime": """
        sys sysconfig warnings dataclasses contextlib abc atexit traceback gc inspect annotationlib site
        code codeop""",
    "importing": """
        zipimport pkgutil modulefinder runpy importlib importlib.abc importlib.machinery importlib.util
        importlib.metadata importlib.resources importlib.resources.abc importlib.resources.readers
        importlib.resources.simple importlib.readers importlib.simple""",
    "language": """
        ast symtable token keyword tokenize tabnanny pyclbr py_compile compileall dis opcode pickletools""",
}
"""Names of modules, separated by white space, by chapter."""

SAME_MODULE: dict[str, str] = {"posix": "os", "nt": "os", "posixpath": "os.path", "ntpath": "os.path"}
"""Where the reference documents modules that say another name of themselves."""

REPLACED: frozenset[str] = frozenset(
    """
    sys.excepthook sys.unraisablehook sys.displayhook sys.breakpointhook threading.excepthook
    pdb.set_trace inspect.getfile warnings.showwarning warnings._showwarnmsg warnings._showwarnmsg_impl
    typing._collect_parameters typing._collect_type_vars typing._check_generic
    """.split()
)
"""Where debuggers, test runners and backports put functions of their own. They are no part of the demo set,
which shall not depend on what else a process has loaded."""
