"""The Kubernetes manifests: valid, hardened, with times that fit, and drop-ins that pass `sidecar check`."""

from __future__ import annotations

import copy
import importlib
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.merge import Configuration, load
from sidecar.net.settings import ListenerSettings
from sidecar.routing.explain import explain
from sidecar.settings import SECTIONS, SidecarSettings
from tests.support.live import ROOT, free_port, until

FOLDER = ROOT / "packaging/kubernetes"
FILES = sorted(file.name for file in FOLDER.glob("*.yaml"))
DEPLOYMENTS = ("native-sidecar.yaml", "second-container.yaml")
#: The oldest version in which a native sidecar and a sleeping preStop need no feature gate, and a newer one.
VERSIONS = ("1.30", "1.34")

Object = dict[str, Any]


def package(name: str) -> Any:
    """A package of the dev dependencies."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise AssertionError(
            "kubernetes-validate is not installed: install the dev dependency group"
        ) from error


def documents(name: str) -> list[Object]:
    return list(package("yaml").safe_load_all((FOLDER / name).read_text()))


def document(name: str) -> Object:
    (only,) = documents(name)
    return only


def validate(found: Object, version: str) -> None:
    """Raises what the schema of a version of Kubernetes has against it."""
    package("kubernetes_validate").validate(found, version, strict=True)


def pod(name: str) -> Object:
    found: Object = document(name)["spec"]["template"]["spec"]
    return found


def container(name: str, called: str) -> Object:
    spec = pod(name)
    (found,) = (one for one in spec.get("initContainers", []) + spec["containers"] if one["name"] == called)
    return dict(found)


@pytest.fixture
def drop_ins(tmp_path: Path) -> Path:
    """The ConfigMap as a kubelet mounts it: names that link into a folder that is swapped as a whole."""
    data = tmp_path / "..2024_01_01"
    data.mkdir()
    (tmp_path / "..data").symlink_to(data.name)
    for name, text in document("configmap.yaml")["data"].items():
        (data / name).write_text(text)
        (tmp_path / name).symlink_to(f"..data/{name}")
    return tmp_path


@pytest.fixture
def configuration(drop_ins: Path) -> Configuration:
    return load(drop_ins, SECTIONS, {})


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", FILES)
def test_manifests_are_valid(name: str, version: str) -> None:
    """By the schema, and nothing is in them that it does not know."""
    validate(document(name), version)


def broken() -> Iterator[tuple[str, Object]]:
    """Copies of a manifest, each with one mistake."""
    for what in ("a word for a number", "an unknown key", "a missing name"):
        found = copy.deepcopy(document("native-sidecar.yaml"))
        first = found["spec"]["template"]["spec"]["initContainers"][0]
        if what == "a word for a number":
            first["ports"][0]["containerPort"] = "http"
        elif what == "an unknown key":
            first["restartPolicies"] = first.pop("restartPolicy")
        else:
            del first["name"]
        yield what, found


@pytest.mark.parametrize("what", [what for what, _ in broken()] if FILES else [])
def test_a_broken_manifest_is_refused(what: str) -> None:
    """So that the test above can fail."""
    with pytest.raises(package("kubernetes_validate").ValidationError):
        validate(dict(broken())[what], VERSIONS[0])


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_sidecar_runs_with_as_little_as_it_can(name: str) -> None:
    """What the restricted pod security standard asks for, and a root nobody writes to."""
    found = container(name, "sidecar")
    assert found["securityContext"] == {
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod(name)["securityContext"] == {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert {"requests", "limits"} <= found["resources"].keys()
    mounts = {mount["mountPath"]: mount for mount in found["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod(name)["volumes"]}
    assert "emptyDir" in volumes[mounts["/tmp"]["name"]]
    dropped = mounts["/etc/sidecar/conf.d"]
    assert "subPath" not in dropped
    assert volumes[dropped["name"]]["configMap"]["name"] == document("configmap.yaml")["metadata"]["name"]


def test_native_sidecar_is_an_init_container_that_goes_on() -> None:
    (found,) = pod("native-sidecar.yaml")["initContainers"]
    assert found["restartPolicy"] == "Always"
    assert [one["name"] for one in pod("native-sidecar.yaml")["containers"]] == ["app"]


def test_second_container_is_the_same_sidecar() -> None:
    """Both forms differ by where the container stands and by nothing else."""
    native = container("native-sidecar.yaml", "sidecar")
    del native["restartPolicy"]
    assert container("second-container.yaml", "sidecar") == native
    assert "initContainers" not in pod("second-container.yaml")


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_service_leads_to_the_sidecar(name: str) -> None:
    service = document("service.yaml")["spec"]
    labels = document(name)["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    assert document(name)["spec"]["selector"]["matchLabels"].items() <= labels.items()
    ports = {port["name"] for port in container(name, "sidecar")["ports"]}
    assert {port["targetPort"] for port in service["ports"]} <= ports


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_probes_ask_the_sidecar_itself(name: str, configuration: Configuration) -> None:
    """By the port that it answers at, on all addresses: the kubelet asks that of the pod."""
    found = container(name, "sidecar")
    ports = {port["name"]: port["containerPort"] for port in found["ports"]}
    bound = [address.port for one in configuration.named(ListenerSettings).values() for address in one.bind]
    admin = configuration.only(SidecarSettings).admin
    assert admin is not None
    assert (admin.host, admin.port) == ("0.0.0.0", ports["admin"])
    assert sorted(ports.values()) == sorted([*bound, admin.port])
    asked = {probe: found[probe]["httpGet"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {one["port"] for one in asked.values()} == {"admin"}
    assert {probe: one["path"] for probe, one in asked.items()} == {
        "startupProbe": "/livez",
        "readinessProbe": "/readyz",
        "livenessProbe": "/livez",
    }


def test_no_service_leads_to_what_the_probes_ask() -> None:
    assert [port["targetPort"] for port in document("service.yaml")["spec"]["ports"]] == ["http"]


def test_probe_is_not_reached_by_the_listener_of_clients(configuration: Configuration) -> None:
    """An app may have a /livez of its own."""
    told = explain(configuration, "GET", "http://shop.example/livez", [], "10.1.2.1", "public")
    assert told.as_dict()["route"] == "shop"


def test_times_of_the_second_container_fit(configuration: Configuration) -> None:
    """The app waits as long as the sidecar may need it, and the kubelet waits for both."""
    settings = configuration.only(SidecarSettings)
    (word, seconds) = container("second-container.yaml", "app")["lifecycle"]["preStop"]["exec"]["command"]
    assert word == "sleep"
    assert settings.drain_delay >= 5, "endpoints are not removed at once"
    assert float(seconds) >= settings.drain_delay + settings.drain_timeout
    assert pod("second-container.yaml")["terminationGracePeriodSeconds"] >= float(seconds) + 10


def test_times_of_the_native_sidecar_fit(configuration: Configuration) -> None:
    """It is told to end when the app has ended: the times add up."""
    settings = configuration.only(SidecarSettings)
    pause = container("native-sidecar.yaml", "app")["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed = pause + settings.drain_delay + settings.drain_timeout
    assert pause >= 5, "endpoints are not removed at once"
    assert pod("native-sidecar.yaml")["terminationGracePeriodSeconds"] >= needed + 10


def test_drop_ins_pass_the_check(binary: Path, drop_ins: Path) -> None:
    done = subprocess.run([binary, "check", "--conf", drop_ins], capture_output=True, text=True, timeout=20)
    # The one warning is meant: the ConfigMap says why.
    (warning,) = done.stderr.splitlines()
    assert warning.startswith(f"warning: {drop_ins}/00-process.ini:")
    assert "[sidecar] admin: 0.0.0.0:9901 answers whoever reaches this machine" in warning
    assert done.returncode == 0
    assert done.stdout == f"{drop_ins}: ok: 1 listener, 0 certificates, 1 upstream, 1 route\n"


def test_drop_ins_answer_the_probe(binary: Path, drop_ins: Path) -> None:
    """While there is no app yet; only the ports are others here."""
    probe, public, app = free_port(), free_port(), free_port()
    changes = {
        "00-process.ini": ("0.0.0.0:9901", f"127.0.0.1:{probe}"),
        "20-shop.ini": ("0.0.0.0:8080", f"127.0.0.1:{public}"),
        "30-app.ini": ("", f"[upstream shop]\nserver.app = 127.0.0.1:{app}\n[sidecar]\ndrain_delay = 0s\n"),
    }
    for name, (old, new) in changes.items():
        file = drop_ins / name
        text = file.read_text() if file.exists() else ""
        assert old in text
        file.write_text(text.replace(old, new) if old else new)
    process = subprocess.Popen(
        [binary, "run", "--conf", drop_ins],
        env=dict(os.environ),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def status(port: int, path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.request.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0

    try:
        assert until(lambda: status(probe, "/livez"), "the probe is answered", 15.0) == 200
        assert status(probe, "/readyz") == 200
        assert status(public, "/") == 502
    finally:
        process.terminate()
        assert process.wait(10) == 0
