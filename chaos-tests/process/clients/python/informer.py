"""Follows one kind with the library's informer, and tells on standard output what it was told, a JSON object a line.

Arguments: a kubeconfig, a namespace, and `pods` or `configmaps`. Ends when standard input does.
"""

import json
import logging
import sys
import threading

from kubernetes import client, config
from kubernetes.informer.informer import ADDED, DELETED, MODIFIED, SharedInformer

NUMBER = "example.com/number"
lock = threading.Lock()


def say(**what):
    with lock:
        print(json.dumps(what), flush=True)


class Telling(SharedInformer):
    """Says when it lists."""

    def _initial_list(self):
        say(list="begins")
        super()._initial_list()
        say(list="ends", revision=int(self._resource_version))


def tells(kind):
    def tell(thing):
        meta = thing.metadata
        number = (meta.annotations or {}).get(NUMBER)
        if number is not None:
            revision = int(meta.resource_version)
            say(told=kind, name=meta.name, number=int(number), revision=revision)

    return tell


def main():
    kubeconfig, namespace, plural = sys.argv[1:]
    # What it cannot reach for a moment is no error here.
    logging.disable(logging.CRITICAL)
    config.load_kube_config(config_file=kubeconfig)
    api = client.CoreV1Api()
    follow = {"pods": api.list_namespaced_pod, "configmaps": api.list_namespaced_config_map}
    informer = Telling(follow[plural], namespace=namespace)
    for kind in (ADDED, MODIFIED, DELETED):
        informer.add_event_handler(kind, tells(kind))
    informer.start()
    sys.stdin.read()


main()
