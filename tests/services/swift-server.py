"""
Runs one Swift server in the foreground: what swift-proxy-server and its kin do, which are in Debian packages that would
also bring system services. Arguments: proxy, account, container or object, and the folder with all its settings.
"""
import os
import sys

from swift.common import utils

kind, folder = sys.argv[1:]
utils.set_swift_dir(folder)

from swift.common.storage_policy import reload_storage_policies  # noqa: E402  (reads the folder)
from swift.common.wsgi import run_wsgi  # noqa: E402

reload_storage_policies()
options = {'verbose': True}
if kind == 'object':
    from swift.obj import server
    options['global_conf_callback'] = server.global_conf_callback
sys.exit(run_wsgi(os.path.join(folder, kind + '.conf'), kind + '-server', **options))
