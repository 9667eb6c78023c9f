"""What programs do with the Python client, against a real cluster.

Argument: a kubeconfig. Each function whose name begins with `shows_` is one test. A line `@kill` on standard output
asks for the replica to be killed that the newest connection goes to; the answer is a line on standard input.
"""

import asyncio
import json
import os
import sys
import tempfile
import threading
import time
import traceback

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock
from kubernetes.stream import portforward, stream
from kubernetes.utils.retry import retry_on_conflict

NS = "python"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
CONTAINER = {"name": "main", "image": "toolbox", "command": ["sleep", "inf"]}
NOWHERE = {"nowhere": "at-all"}


def core():
    return client.CoreV1Api()


def eventually(what, look, seconds=20):
    """Waits until `look` answers something that is true, and answers that."""
    until = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < until, f"not in {seconds} s: {what}"
        time.sleep(0.05)


def refused(call, status, reason):
    """The refusal as a Status, with the library's own words for it held against what is wanted."""
    try:
        call()
    except ApiException as error:
        assert error.status == status, error
        body = json.loads(error.body)
        assert (body["kind"], body["status"]) == ("Status", "Failure"), body
        assert (body["code"], body["reason"]) == (status, reason), body
        assert error.reason, "HTTP's own words"
        return error, body
    raise AssertionError(f"not refused with {status} {reason}")


def template(app, **more):
    spec = {"containers": [CONTAINER], "nodeSelector": NOWHERE, **more}
    return {"metadata": {"labels": {"app": app}}, "spec": spec}


def workload(**more):
    return {"selector": {"matchLabels": {"app": "none"}}, "template": template("none"), **more}


def many_kinds():
    """API, what the library calls the kind, what it is made of, whether it is in a namespace."""
    apps, batch = client.AppsV1Api(), client.BatchV1Api()
    rbac = client.RbacAuthorizationV1Api()
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
    subject = {"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}

    def role(kind):
        return {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "kept"}

    return [
        (core(), "config_map", {"data": {"a": "b"}, "binaryData": {"c": "AAEC"}}, True),
        (core(), "secret", {"stringData": {"a": "b"}, "type": "Opaque"}, True),
        (core(), "service", {"spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}}, True),
        (core(), "service_account", {}, True),
        # Nobody schedules it: what is read is what was made.
        (core(), "pod", {"spec": {"containers": [CONTAINER], "schedulerName": "nobody"}}, True),
        (core(), "pod_template", {"template": template("none")}, True),
        (
            core(),
            "replication_controller",
            {"spec": {"replicas": 0, "selector": {"app": "none"}, "template": template("none")}},
            True,
        ),
        (core(), "endpoints", {"subsets": []}, True),
        (
            core(),
            "limit_range",
            {"spec": {"limits": [{"type": "Container", "default": {"cpu": "1"}}]}},
            True,
        ),
        (core(), "resource_quota", {"spec": {"hard": {"services": "100"}}}, True),
        (apps, "deployment", {"spec": workload(replicas=0)}, True),
        (apps, "replica_set", {"spec": workload(replicas=0)}, True),
        (apps, "stateful_set", {"spec": workload(replicas=0, serviceName="none")}, True),
        (apps, "daemon_set", {"spec": workload()}, True),
        (apps, "controller_revision", {"revision": 1, "data": {"a": "b"}}, True),
        (
            batch,
            "job",
            {"spec": {"suspend": True, "template": template("none", restartPolicy="Never")}},
            True,
        ),
        (
            batch,
            "cron_job",
            {
                "spec": {
                    "schedule": "0 0 1 1 *",
                    "jobTemplate": {"spec": {"template": template("none", restartPolicy="Never")}},
                }
            },
            True,
        ),
        (
            client.CoordinationV1Api(),
            "lease",
            {"spec": {"holderIdentity": "me", "renewTime": "2026-11-28T12:00:00.123456Z"}},
            True,
        ),
        (
            client.PolicyV1Api(),
            "pod_disruption_budget",
            {"spec": {"minAvailable": "50%", "selector": {"matchLabels": {"app": "none"}}}},
            True,
        ),
        (
            client.AutoscalingV2Api(),
            "horizontal_pod_autoscaler",
            {
                "spec": {
                    "maxReplicas": 3,
                    "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
                }
            },
            True,
        ),
        (
            client.DiscoveryV1Api(),
            "endpoint_slice",
            {"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": []},
            True,
        ),
        (rbac, "role", {"rules": [rule]}, True),
        (rbac, "role_binding", {"roleRef": role("Role"), "subjects": [subject]}, True),
        (rbac, "cluster_role", {"rules": [rule]}, False),
        (rbac, "cluster_role_binding", {"roleRef": role("ClusterRole")}, False),
        (client.SchedulingV1Api(), "priority_class", {"value": 7}, False),
        (core(), "namespace", {}, False),
    ]


def shows_every_kind_is_made_read_changed_and_removed():
    for api, kind, body, namespaced in many_kinds():
        name = f"kind-{kind.replace('_', '-')}"
        place = (NS,) if namespaced else ()

        def call(verb, *arguments, what=kind, **named):
            middle = "_namespaced_" if namespaced else "_"
            return getattr(api, f"{verb}{middle}{what}")(*arguments, **named)

        try:
            made = call("create", *place, {"metadata": {"name": name}, **body})
            assert made.metadata.uid and made.metadata.resource_version, kind
            read = call("read", name, *place)
            # A controller may have written the status of these already.
            if kind in ("namespace", "resource_quota"):
                assert read.metadata.uid == made.metadata.uid and read.spec == made.spec, kind
            else:
                assert read == made, f"{kind}: {read} is not {made}"
            listed = call("list", *place) if namespaced else getattr(api, f"list_{kind}")()
            assert listed.metadata.resource_version, kind
            assert name in [one.metadata.name for one in listed.items], kind
            labels = {"metadata": {"labels": {"a": "b"}}}
            patched = call("patch", name, *place, labels)
            assert patched.metadata.labels["a"] == "b", kind
            patched.metadata.annotations = {**(patched.metadata.annotations or {}), "c": "d"}
            replaced = retry_on_conflict(lambda: replace(call, name, place))
            assert replaced.metadata.annotations["c"] == "d", kind
            assert replaced.metadata.labels["a"] == "b", kind
            dry = call("create", *place, {"metadata": {"name": f"{name}-dry"}, **body}, dry_run="All")
            assert dry.metadata.name == f"{name}-dry", kind
            refused(lambda: call("read", f"{name}-dry", *place), 404, "NotFound")
            deleted = call("delete", name, *place)
            if kind in ("pod", "pod_template", "resource_quota", "service", "service_account"):
                assert deleted.metadata.name == name, f"its last form is told: {deleted}"
            elif kind != "namespace":
                assert deleted["status"] == "Success", deleted

            def gone():
                try:
                    call("read", name, *place)
                    return False
                except ApiException as error:
                    return error.status == 404

            eventually(f"{kind} is gone", gone)
        except Exception as error:
            raise AssertionError(f"{kind}: {error}") from error


def replace(call, name, place):
    found = call("read", name, *place)
    found.metadata.annotations = {**(found.metadata.annotations or {}), "c": "d"}
    return call("replace", name, *place, found)


def shows_every_way_to_patch():
    apps = client.AppsV1Api()
    body = {"metadata": {"name": "patched"}, "spec": workload(replicas=0)}
    apps.create_namespaced_deployment(NS, body)

    def patch(body, content_type, **named):
        # The library takes no lists as a merge patch, and says itself what an object is without this.
        return apps.patch_namespaced_deployment(
            "patched", NS, body, _content_type=content_type, **named
        )

    added = {"spec": {"template": {"spec": {"containers": [{"name": "second", "image": "toolbox"}]}}}}
    names = [c.name for c in patch(added, STRATEGIC).spec.template.spec.containers]
    assert names == ["second", "main"], names
    replaced = patch(added, MERGE)
    assert [c.name for c in replaced.spec.template.spec.containers] == ["second"]
    operations = [
        {"op": "test", "path": "/spec/replicas", "value": 0},
        {"op": "test", "path": "/metadata/finalizers", "value": None},
        {"op": "add", "path": "/metadata/annotations", "value": {}},
        {"op": "add", "path": "/metadata/annotations/by~1json", "value": "yes"},
    ]
    assert patch(operations, "application/json-patch+json").metadata.annotations["by/json"] == "yes"
    by_itself = apps.patch_namespaced_deployment("patched", NS, {"metadata": {"labels": {"x": "y"}}})
    assert by_itself.metadata.labels == {"x": "y"}
    operations[0]["value"] = 5
    refused(lambda: patch(operations, "application/json-patch+json"), 422, "Invalid")
    refused(lambda: patch({}, "application/json"), 415, "UnsupportedMediaType")
    stale = {"metadata": {"resourceVersion": "1", "labels": {"x": "z"}}}
    refused(lambda: patch(stale, MERGE), 409, "Conflict")
    scale = apps.patch_namespaced_deployment_scale("patched", NS, {"spec": {"replicas": 1}})
    assert scale.spec.replicas == 1
    assert apps.read_namespaced_deployment_scale("patched", NS).spec.replicas == 1
    # The object is one part, and its status another.
    both = {"spec": {"replicas": 7}, "status": {"observedGeneration": 1}}
    looked_at = apps.patch_namespaced_deployment_status("patched", NS, both)
    assert (looked_at.spec.replicas, looked_at.status.observed_generation) == (1, 1), looked_at
    apps.delete_namespaced_deployment("patched", NS)


def shows_who_applies_owns_what_is_applied():
    def applied(manager, data, **named):
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": data}
        return core().patch_namespaced_config_map(
            "applied", NS, body, _content_type=APPLY, field_manager=manager, **named
        )

    made = applied("one", {"a": "1", "b": "1"})
    managers = [(m.manager, m.operation) for m in made.metadata.managed_fields]
    assert managers == [("one", "Apply")], managers
    _, body = refused(lambda: applied("two", {"a": "2"}), 409, "Conflict")
    cause = body["details"]["causes"][0]
    assert (cause["reason"], cause["field"]) == ("FieldManagerConflict", ".data.a"), body
    assert applied("two", {"a": "2"}, force=True).data == {"a": "2", "b": "1"}
    assert applied("one", {"c": "3"}).data == {"a": "2", "c": "3"}, "what one left goes"
    again = applied("one", {"c": "3"})
    assert again.metadata.resource_version == applied("one", {"c": "3"}).metadata.resource_version
    refused(lambda: applied("", {"c": "3"}), 422, "Invalid")


def shows_what_is_refused_in_the_words_of_the_library():
    api = core()
    body = {"metadata": {"name": "once"}, "data": {"a": "b"}}
    error, status = refused(lambda: api.read_namespaced_pod("none", NS), 404, "NotFound")
    assert isinstance(error, client.exceptions.NotFoundException)
    assert (error.reason, status["message"]) == ("Not Found", 'pods "none" not found')
    assert error.headers["Content-Type"] == "application/json"
    made = api.create_namespaced_config_map(NS, body)
    error, status = refused(lambda: api.create_namespaced_config_map(NS, body), 409, "AlreadyExists")
    assert isinstance(error, client.exceptions.ConflictException)
    assert status["details"] == {"name": "once", "kind": "configmaps"}, status
    api.patch_namespaced_config_map("once", NS, {"data": {"a": "c"}})
    made.data = {"a": "d"}
    refused(lambda: api.replace_namespaced_config_map("once", NS, made), 409, "Conflict")
    wrong = {"metadata": {"name": "Wrong!"}, "spec": {"containers": [{"name": "a", "image": "b"}]}}
    error, status = refused(lambda: api.create_namespaced_pod(NS, wrong), 422, "Invalid")
    assert isinstance(error, client.exceptions.UnprocessableEntityException)
    assert status["details"]["causes"][0]["field"] == "metadata.name", status
    selector = {"field_selector": "spec.color=red"}
    error, _ = refused(lambda: api.list_namespaced_pod(NS, **selector), 400, "BadRequest")
    assert isinstance(error, client.exceptions.BadRequestException)
    refused(lambda: api.list_namespaced_pod(NS, label_selector="a b c"), 400, "BadRequest")
    # What is no field of an object, the library refuses itself; of a patch it knows no fields.
    strict = {"field_validation": "Strict"}
    unknown = {"dat": {"a": "b"}}
    refused(lambda: api.patch_namespaced_config_map("once", NS, unknown, **strict), 400, "BadRequest")
    refused(lambda: api.create_namespaced_config_map("none", body), 404, "NotFound")
    precondition = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="other"))
    refused(lambda: api.delete_namespaced_config_map("once", NS, body=precondition), 409, "Conflict")
    far = str(int(made.metadata.resource_version) + 10**9)
    begin = time.monotonic()
    error, status = refused(
        lambda: api.list_namespaced_pod(NS, resource_version=far), 504, "Timeout"
    )
    assert isinstance(error, client.exceptions.ServiceException)
    assert status["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge", status
    assert time.monotonic() - begin < 10
    gone = api.delete_namespaced_config_map("once", NS)
    assert (gone["status"], gone["details"]["name"]) == ("Success", "once"), gone


def shows_pages_and_collections():
    api = core()
    for i in range(25):
        labels = {"pages": "yes", "half": "first" if i < 12 else "second"}
        api.create_namespaced_config_map(
            NS, {"metadata": {"name": f"page-{i:02}", "labels": labels}}
        )
    names, token, pages, versions = [], None, 0, set()
    while True:
        page = api.list_namespaced_config_map(NS, limit=10, _continue=token, label_selector="pages")
        names += [one.metadata.name for one in page.items]
        versions.add(page.metadata.resource_version)
        pages += 1
        token = page.metadata._continue
        if not token:
            break
        # Nothing that happens meanwhile changes the pages.
        api.create_namespaced_config_map(
            NS, {"metadata": {"name": f"page-00-{pages}", "labels": {"pages": "yes"}}}
        )
    assert names == [f"page-{i:02}" for i in range(25)], names
    assert (pages, len(versions)) == (3, 1), (pages, versions)
    first = api.list_namespaced_config_map(NS, limit=1)
    all_of_them = api.list_namespaced_config_map(NS)
    assert first.metadata.remaining_item_count == len(all_of_them.items) - 1
    cached = api.list_namespaced_config_map(NS, resource_version="0", limit=1)
    assert len(cached.items) > 1, "from memory there are no pages"
    exact = api.list_namespaced_config_map(
        NS, resource_version=versions.pop(), resource_version_match="Exact", label_selector="pages"
    )
    assert len(exact.items) == 25
    api.delete_collection_namespaced_config_map(NS, label_selector="half=first")
    left = [one.metadata.name for one in api.list_namespaced_config_map(NS, label_selector="half").items]
    assert left == [f"page-{i:02}" for i in range(12, 25)], left
    options = client.V1DeleteOptions(dry_run=["All"])
    api.delete_collection_namespaced_config_map(NS, label_selector="pages", body=options)
    assert len(api.list_namespaced_config_map(NS, label_selector="half").items) == 13
    api.delete_collection_namespaced_config_map(NS, label_selector="pages")
    assert api.list_namespaced_config_map(NS, label_selector="pages").items == []


def told(events, count):
    """So many events, by type, name and the number that the object carries."""
    seen = []
    for event in events:
        thing = event["object"]
        seen.append((event["type"], thing.metadata.name, (thing.data or {}).get("number")))
        if len(seen) == count:
            return seen
    raise AssertionError(f"the watch ends after {seen}")


def number(api, name, value):
    api.patch_namespaced_config_map(name, NS, {"data": {"number": str(value)}})


def shows_a_watch_sees_what_enters_and_what_leaves():
    api = core()
    begin = api.list_namespaced_config_map(NS).metadata.resource_version
    api.create_namespaced_config_map(NS, {"metadata": {"name": "seen"}, "data": {"number": "0"}})
    number(api, "seen", 1)
    label = {"metadata": {"labels": {"in": "yes"}}}
    api.patch_namespaced_config_map("seen", NS, label)
    number(api, "seen", 2)
    api.patch_namespaced_config_map("seen", NS, {"metadata": {"labels": {"in": None}}})
    api.delete_namespaced_config_map("seen", NS)
    named = {"resource_version": begin, "timeout_seconds": 10}
    plain = watch.Watch()
    events = plain.stream(
        api.list_namespaced_config_map, NS, field_selector="metadata.name=seen", **named
    )
    wanted = ["ADDED", "MODIFIED", "MODIFIED", "MODIFIED", "MODIFIED", "DELETED"]
    assert [kind for kind, *_ in told(events, 6)] == wanted
    plain.stop()
    events = watch.Watch().stream(
        api.list_namespaced_config_map, NS, label_selector="in=yes", **named
    )
    seen = told(events, 3)
    assert seen == [("ADDED", "seen", "1"), ("MODIFIED", "seen", "2"), ("DELETED", "seen", "2")], seen
    begin = time.monotonic()
    silent = watch.Watch().stream(
        api.list_namespaced_config_map, NS, label_selector="in=never", timeout_seconds=2,
        allow_watch_bookmarks=True,
    )
    assert [event["type"] for event in silent if event["type"] != "BOOKMARK"] == []
    assert time.monotonic() - begin < 10, "the server ends it"


def shows_a_watch_goes_on_when_its_replica_dies():
    api = core()
    api.create_namespaced_config_map(NS, {"metadata": {"name": "lives"}, "data": {"number": "0"}})
    from_here = api.list_namespaced_config_map(NS).metadata.resource_version
    over, seen, errors = threading.Event(), [], []

    def follow():
        version = from_here
        own = client.CoreV1Api(client.ApiClient())
        watcher = watch.Watch()
        while not over.is_set():
            try:
                events = watcher.stream(
                    own.list_namespaced_config_map,
                    NS,
                    field_selector="metadata.name=lives",
                    resource_version=version,
                )
                for event in events:
                    version = watcher.resource_version
                    seen.append((event["type"], int(event["object"].data["number"])))
                    if seen[-1][1] == 60:
                        return
            except Exception as error:
                # Whatever breaks it: it goes on where it was.
                errors.append(error)
                version = watcher.resource_version or version
                time.sleep(0.05)

    writer = client.CoreV1Api(client.ApiClient())
    number(writer, "lives", 0)
    # Its connection is the newest one.
    thread = threading.Thread(target=follow)
    thread.start()

    def write(value):
        # What is not known to have been carried out is done again: the same write changes nothing then.
        until = time.monotonic() + 20
        while True:
            try:
                return number(writer, "lives", value)
            except Exception:
                assert time.monotonic() < until, traceback.format_exc()
                time.sleep(0.05)

    for value in range(1, 61):
        write(value)
        if value in (20, 40):
            eventually("the watch is there", lambda: len(seen) == value)
            kill()
    thread.join(timeout=30)
    over.set()
    assert seen == [("MODIFIED", value) for value in range(1, 61)], seen
    assert errors, "nothing broke"


def kill():
    print("@kill", flush=True)
    assert sys.stdin.readline() == "killed\n"


def shows_what_is_not_known_beforehand():
    found = dynamic.DynamicClient(client.ApiClient())
    assert found.version["kubernetes"]["major"] == "1"
    maps = found.resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dynamic"}, "data": {"a": "1"}}
    made = maps.create(body=body, namespace=NS)
    assert maps.get(name="dynamic", namespace=NS).data.a == "1"
    body["data"]["a"] = "2"
    body["metadata"]["resourceVersion"] = made.metadata.resourceVersion
    assert maps.replace(body=body, namespace=NS).data.a == "2"
    patch = {"metadata": {"name": "dynamic", "labels": {"b": "c"}}}
    assert maps.patch(body=patch, namespace=NS, content_type=MERGE).metadata.labels.b == "c"
    del body["metadata"]["resourceVersion"]
    applied = maps.server_side_apply(
        body=body, namespace=NS, field_manager="dynamic", force_conflicts=True
    )
    assert applied.metadata.managedFields[0].operation in ("Apply", "Update")
    seen = []
    events = maps.watch(
        namespace=NS,
        label_selector="b=c",
        timeout=5,
        allow_watch_bookmarks=True,
        send_initial_events=True,
        resource_version_match="NotOlderThan",
    )
    for event in events:
        seen.append(event["type"])
        if event["type"] == "BOOKMARK":
            marks = event["raw_object"]["metadata"]["annotations"]
            assert marks == {"k8s.io/initial-events-end": "true"}, marks
            break
    assert seen == ["ADDED", "BOOKMARK"], seen
    maps.delete(name="dynamic", namespace=NS)
    try:
        maps.get(name="dynamic", namespace=NS)
        raise AssertionError("it is there still")
    except dynamic.exceptions.NotFoundError:
        pass
    # Everything that discovery tells of can be listed.
    kinds = 0
    for resource in found.resources.search():
        # The library adds a kind of its own for the lists.
        if not isinstance(resource, dynamic.resource.ResourceList) and "list" in resource.verbs:
            assert resource.get().kind.endswith("List"), resource
            kinds += 1
    assert kinds >= 30, kinds


def shows_files_of_manifests():
    text = """
apiVersion: v1
kind: ConfigMap
metadata: {name: from-a-file}
data: {a: "1"}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Secret, metadata: {name: from-a-file}, stringData: {b: "2"}}
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: from-a-file}
  spec:
    replicas: 0
    selector: {matchLabels: {app: f}}
    template:
      metadata: {labels: {app: f}}
      spec: {containers: [{name: main, image: toolbox}]}
"""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        api = client.ApiClient()
        utils.create_from_yaml(api, file.name, namespace=NS)
        assert core().read_namespaced_secret("from-a-file", NS).data == {"b": "Mg=="}
        assert client.AppsV1Api().read_namespaced_deployment("from-a-file", NS).spec.replicas == 0
        try:
            utils.create_from_yaml(api, file.name, namespace=NS)
            raise AssertionError("made twice")
        except utils.FailToCreateError as error:
            reasons = [json.loads(one.body)["reason"] for one in error.api_exceptions]
            assert reasons == ["AlreadyExists"] * 3, reasons
        utils.create_from_yaml(api, file.name, namespace=NS, apply=True, force_conflicts=True)


def shows_many_count_together():
    core().create_namespaced_config_map(NS, {"metadata": {"name": "count"}, "data": {"n": "0"}})

    def add(times):
        api = client.CoreV1Api(client.ApiClient())

        def once():
            found = api.read_namespaced_config_map("count", NS)
            found.data["n"] = str(int(found.data["n"]) + 1)
            api.replace_namespaced_config_map("count", NS, found)

        backoff = utils.retry.Backoff(duration=0.01, factor=1.5, jitter=0.5, steps=30)
        for _ in range(times):
            retry_on_conflict(once, backoff)

    threads = [threading.Thread(target=add, args=(10,)) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert core().read_namespaced_config_map("count", NS).data["n"] == "40"


def shows_one_leads_and_then_the_other():
    for lock in (LeaseLock, ConfigMapLock):
        name = f"lock-{lock.__name__.lower()}"
        order, first_leads, first_ends = [], threading.Event(), threading.Event()

        def lead(identity):
            def started():
                order.append(identity)
                if identity == "first":
                    first_leads.set()
                    assert first_ends.wait(30)
                raise RuntimeError("so much for that")

            settings = electionconfig.Config(
                lock(name, NS, identity), 3, 2, 1, started, lambda: order.append(f"{identity} ends")
            )
            leaderelection.LeaderElection(settings).run()

        threads = [threading.Thread(target=lead, args=("first",))]
        threads[0].start()
        assert first_leads.wait(30), lock
        threads.append(threading.Thread(target=lead, args=("second",)))
        threads[1].start()
        # Longer than a lease: it is renewed.
        time.sleep(4)
        assert order == ["first"], order
        first_ends.set()
        [thread.join(timeout=60) for thread in threads]
        assert order == ["first", "first ends", "second", "second ends"], (lock, order)


def shows_programs_in_pods():
    api = core()
    pods = {
        "runs": ["run", "http 127.0.0.1:8080 /tmp", "sleep inf"],
        "talks": ["run", "print one", "print two", "sleep 0.5", "print three"],
    }
    for name, command in pods.items():
        container = {"name": "main", "image": "toolbox", "command": command}
        spec = {"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1}
        api.create_namespaced_pod(NS, {"metadata": {"name": name}, "spec": spec})
    repeats = {"name": "main", "image": "toolbox", "command": ["cat"], "stdin": True, "stdinOnce": True}
    api.create_namespaced_pod(
        NS,
        {"metadata": {"name": "repeats"}, "spec": {"containers": [repeats], "restartPolicy": "Never"}},
    )
    for name in ("runs", "repeats"):
        eventually(f"{name} runs", lambda: phase(api, name) == "Running", 60)

    def run(*command, **named):
        asked = {"stdin": False, "stdout": True, "stderr": True, "tty": False, **named}
        return stream(
            api.connect_get_namespaced_pod_exec, "runs", NS, command=list(command), **asked
        )

    assert run("run", "print out") == "out\n"
    ended = run("run", "print out", "exit 7", _preload_content=False)
    ended.run_forever(timeout=20)
    # In this order: the library forgets how it ended with what it said.
    assert (ended.returncode, ended.read_all()) == (7, "out\n")
    talk = run("cat", stdin=True, _preload_content=False)
    assert talk.subprotocol == "v5.channel.k8s.io", talk.subprotocol
    talk.write_stdin("there\n")
    assert talk.readline_stdout(timeout=20) == "there"
    talk.close_channel(0)
    talk.run_forever(timeout=20)
    assert talk.returncode == 0, "the end of its input ends it"
    large = bytes(i % 251 for i in range(300_000))
    talk = run("cat", stdin=True, _preload_content=False, binary=True)
    talk.write_stdin(large)
    talk.close_channel(0)
    talk.run_forever(timeout=20)
    assert talk.read_all() == large
    terminal = run("stty", "size", tty=True, stdin=True)
    assert terminal.strip(), terminal
    try:
        run("nowhere", container="nobody")
        raise AssertionError("no such container")
    except ApiException as error:
        assert "400" in error.reason and "nobody" in error.reason, error.reason

    attached = stream(
        api.connect_get_namespaced_pod_attach, "repeats", NS, stdin=True, stdout=True, stderr=True,
        tty=False, _preload_content=False,
    )
    attached.write_stdin("over here\n")
    assert attached.readline_stdout(timeout=20) == "over here"
    attached.close_channel(0)
    eventually("its input has ended", lambda: phase(api, "repeats") == "Succeeded", 60)

    def get():
        ports = portforward(api.connect_get_namespaced_pod_portforward, "runs", NS, ports="8080")
        socket = ports.socket(8080)
        socket.setblocking(True)
        socket.settimeout(20)
        socket.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while True:
            more = socket.recv(65536)
            if not more:
                break
            answer += more
        assert ports.error(8080) is None, ports.error(8080)
        return answer

    assert get().startswith(b"HTTP/1.0 "), get()
    closed = portforward(api.connect_get_namespaced_pod_portforward, "runs", NS, ports="8099")
    closed.socket(8099).settimeout(20)
    assert closed.socket(8099).recv(1) == b""
    eventually("why there is no connection", lambda: closed.error(8099))
    assert "8099" in closed.error(8099), closed.error(8099)

    lines = watch.Watch().stream(api.read_namespaced_pod_log, "talks", NS)
    assert list(lines) == ["one", "two", "three"]
    assert api.read_namespaced_pod_log("talks", NS) == "one\ntwo\nthree\n"
    assert api.read_namespaced_pod_log("talks", NS, tail_lines=1) == "three\n"
    stamped = api.read_namespaced_pod_log("talks", NS, tail_lines=1, timestamps=True)
    assert stamped.split(" ")[0].endswith("Z"), stamped
    refused(lambda: api.read_namespaced_pod_log("talks", NS, previous=True), 400, "BadRequest")
    eviction = client.V1Eviction(metadata=client.V1ObjectMeta(name="runs", namespace=NS))
    api.create_namespaced_pod_eviction("runs", NS, eviction)
    removed = api.delete_namespaced_pod("repeats", NS, grace_period_seconds=0)
    assert removed.metadata.name == "repeats", removed
    eventually("it is evicted", lambda: phase(api, "runs") is None, 60)


def phase(api, name):
    try:
        return api.read_namespaced_pod(name, NS).status.phase
    except ApiException as error:
        assert error.status == 404, error
        return None


def shows_what_there_is():
    assert client.VersionApi().get_code().major == "1"
    assert client.CoreApi().get_api_versions().versions == ["v1"]
    groups = [group.name for group in client.ApisApi().get_api_versions().groups]
    assert {"apps", "batch", "coordination.k8s.io", "policy"} <= set(groups), groups
    names = [one.name for one in core().get_api_resources().resources]
    assert {"pods", "pods/log", "pods/exec", "nodes"} <= set(names), names
    nodes = core().list_node().items
    assert nodes and all(node.status.node_info.kubelet_version for node in nodes)
    for event in core().list_event_for_all_namespaces().items:
        assert event.involved_object.kind, event


def shows_the_asynchronous_library_reads_and_follows():
    from kubernetes import aio

    async def follow():
        await aio.config.load_kube_config(config_file=sys.argv[1])
        async with aio.client.ApiClient() as connection:
            api = aio.client.CoreV1Api(connection)
            begin = (await api.list_namespaced_config_map(NS)).metadata.resource_version
            made = {"metadata": {"name": "awaited"}, "data": {"number": "1"}}
            await api.create_namespaced_config_map(NS, made)
            events = aio.watch.Watch().stream(
                api.list_namespaced_config_map, NS, resource_version=begin, timeout_seconds=10
            )
            async for event in events:
                if event["object"].metadata.name == "awaited":
                    return event["type"]

    assert asyncio.run(asyncio.wait_for(follow(), 30)) == "ADDED"


def main():
    config.load_kube_config(config_file=sys.argv[1])
    core().create_namespace({"metadata": {"name": NS}})
    wanted = sys.argv[2:]
    failed = 0
    for name, test in list(globals().items()):
        if not name.startswith("shows_") or (wanted and name not in wanted):
            continue
        begin = time.monotonic()
        try:
            test()
            print(f"ok     {name} {time.monotonic() - begin:.1f} s", flush=True)
        except BaseException:
            failed += 1
            print(f"FAILED {name}\n{traceback.format_exc()}", flush=True)
    # Threads that still follow something hold nobody up.
    os._exit(1 if failed else 0)


main()
