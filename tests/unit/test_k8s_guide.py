"""The commands of deploy/README.md that need no cluster: they make what the pods need."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from common.address import client_of
from deploy.acl import rights
from tests import custom_kinds, debian, kustomize
from tests.manifests import K8S, ROOT, VARIANTS, objects, pods

GUIDE = (ROOT / "deploy" / "README.md").read_text()
KUBECTL = """#!/bin/sh
# Keeps what it is given: files by secret, and standard input.
for word in "$@"; do
  case "$word" in
    --from-file=*) mkdir -p "$KEPT/$name"; cp -r "${word#--from-file=}" "$KEPT/$name" ;;
    apply) cat > "$KEPT/applied" ;;
    *) name=$word ;;
  esac
done
"""


def block(language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.M | re.S)
    return str(found)


def run(script: str, folder: Path, cwd: Path = ROOT) -> Path:
    """Runs a block of the guide with a kubectl that keeps what it is given; the folder of that."""
    programs, kept = folder / "bin", folder / "kept"
    programs.mkdir()
    kept.mkdir()
    (programs / "kubectl").write_text(KUBECTL)
    (programs / "hero").write_text(f'#!/bin/sh\nexec {sys.executable} -m deploy.cli "$@"\n')
    (programs / "openssl").symlink_to(debian.program("openssl", "openssl"))
    for program in ("kubectl", "hero"):
        (programs / program).chmod(0o755)
    temporary = folder / "tmp"
    temporary.mkdir()
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "KEPT": str(kept),
        "NAMESPACE": "hero",
        "RUN": "hero-1",
        "TMPDIR": str(temporary),
    }
    done = subprocess.run(
        ["bash", "-euc", script], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert list(temporary.iterdir()) == []  # nothing is left on disk
    return kept


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    quick = block("bash secrets").replace("rsa:4096", "rsa:2048")
    return run(quick, tmp_path_factory.mktemp("secrets"))


def test_the_secrets_have_every_key_that_is_asked_for(secrets: Path) -> None:
    there = {"hero-tls": {f.name for f in (secrets / "hero-tls").iterdir()}}
    there["hero-broker"] = {f.name for f in (secrets / "hero-broker" / "keys").iterdir()}
    for variant in VARIANTS:
        for pod in pods(variant):
            for variable in (v for c in pod.containers for v in c.get("env", [])):
                asked = variable.get("valueFrom", {}).get("secretKeyRef", {"optional": True})
                assert asked.get("optional") or asked["key"] in there[asked["name"]], variable
            for secret in (volume["secret"] for volume in pod.spec.get("volumes", []) if "secret" in volume):
                assert {item["key"] for item in secret.get("items", [])} <= there[secret["secretName"]]
        for login in objects(variant, "TriggerAuthentication"):
            for asked in login["spec"]["secretTargetRef"]:
                assert asked["key"] in there[asked["name"]], asked


def test_addresses_name_user_server_and_authority(secrets: Path) -> None:
    keys = secrets / "hero-broker" / "keys"
    for role in rights("hero-1"):
        address = (keys / role).read_text()
        assert re.fullmatch(
            rf"rediss://hero-{role}:[\w-]+@hero-broker:6379/0\?ssl_ca_certs=/etc/hero-tls/ca\.crt", address
        )
        assert f"user hero-{role} on #" in (keys / "users.acl").read_text()
    assert "@hero-weights:6379/0?ssl_ca_certs" in (keys / "actor-weights").read_text()
    for role in ("viewer", "admin"):
        password = (keys / f"{role}-password").read_text()
        assert len(password) > 20 and f":{password}@" in (keys / role).read_text()
    assert (keys / "viewer-name").read_text() == "hero-viewer"
    mounted = {m["mountPath"] for pod in pods("prod") for c in pod.containers for m in c.get("volumeMounts", [])}
    assert "/etc/hero-tls" in mounted


def test_without_tls_a_paragraph_is_left_out_and_nothing_else_is_lost(tmp_path: Path) -> None:
    assert "Without TLS leave out the second paragraph, and give `--url redis://hero-broker:6379/0`" in GUIDE
    first, _, *others = block("bash secrets").split("\n\n")
    script = re.sub("--url '[^']*'", "--url redis://hero-broker:6379/0", "\n\n".join([first, *others]))
    here = tmp_path / "project"
    here.mkdir()
    (here / "README.md").write_text("years of work")
    made = run(script, tmp_path, here)
    assert (here / "README.md").read_text() == "years of work" and [*here.iterdir()] == [here / "README.md"]
    assert [one.name for one in made.iterdir()] == ["hero-broker"]
    keys = made / "hero-broker" / "keys"
    assert re.fullmatch(r"redis://hero-learner:[\w-]+@hero-broker:6379/0", (keys / "learner").read_text())
    assert re.fullmatch(r"redis://hero-actor:[\w-]+@hero-weights:6379/0", (keys / "actor-weights").read_text())


HOSTS = (
    "localhost", "hero-broker", "hero-broker.hero.svc", "hero-broker-2.hero-broker.hero.svc", "hero-weights",
    "hero-sentinel.hero.svc", "hero-sentinel-0.hero-sentinel",
)  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_the_certificate_is_valid_for_every_name_of_the_servers(secrets: Path, host: str) -> None:
    folder = secrets / "hero-tls"
    listening = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    listening.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    asking = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = asking.wrap_bio(to_client, to_server, server_hostname=host)
    server = listening.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert client.version() == "TLSv1.3"


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_with_sentinels_weights_have_a_server_of_their_own(tmp_path: Path, scheme: str) -> None:
    first, _, after = block("bash secrets").partition("\n\n")
    _, _, after = after.rpartition("hero acl --url 'rediss://hero-broker:6379/0")
    url = f"{scheme}+sentinel://hero-sentinel:26379/hero/0"
    assert f"--url {url}" in GUIDE or f"--url '{url}" in GUIDE
    made = run(f"{first}\nhero acl --url '{url}{after}", tmp_path) / "hero-broker" / "keys"
    user, _, rest = (made / "learner").read_text().partition("@")
    assert rest == "hero-sentinel:26379/hero/0?ssl_ca_certs=/etc/hero-tls/ca.crt"
    plain = user.replace("+sentinel", "")
    assert (made / "learner-weights").read_text() == f"{plain}@hero-weights:6379/0?ssl_ca_certs=/etc/hero-tls/ca.crt"
    client_of((made / "learner-weights").read_text().partition("?")[0])


def test_the_operators_rules_are_those_of_the_file(tmp_path: Path) -> None:
    rule = yaml.safe_load((run(block("bash rules"), tmp_path) / "applied").read_text())
    custom_kinds.validate(rule)
    assert rule["spec"] == yaml.safe_load((ROOT / "deploy" / "monitoring" / "alerts.yml").read_text())


def test_the_kustomizations_that_it_shows_render(tmp_path: Path) -> None:
    for shown in re.findall(r"^```yaml\n(.*?)^```", GUIDE, re.M | re.S):
        folder = K8S / "overlays" / f".test-{os.getpid()}"
        folder.mkdir()
        try:
            text = shown if "resources:" in shown else f"namespace: hero\nresources: [../prod]\n{shown}"
            (folder / "kustomization.yaml").write_text(text)
            found = kustomize.build(folder)
        finally:
            (folder / "kustomization.yaml").unlink()
            folder.rmdir()
        for one in found:
            custom_kinds.validate(one)
        kinds = {(one["kind"], one["metadata"]["name"]) for one in found}
        assert ("StatefulSet", "hero-broker") not in kinds or ("JobSet", "hero-learner") in kinds


def test_it_names_what_is_there() -> None:
    for path in re.findall(r"(?:deploy|tests|overlays|components)/[\w./-]+\w", GUIDE):
        assert (ROOT / path).exists() or (K8S / path).exists(), path
    listed = set(re.findall(r"^\| `((?:components|overlays)/[\w-]+|base)`", GUIDE, re.M))
    folders = {str(file.parent.relative_to(K8S)) for file in K8S.rglob("kustomization.yaml")}
    own = {folder for folder in folders if ".test-" in folder}  # of a test that runs beside this one
    assert listed == folders - own - {"components/jobset/copy"}


def test_the_pod_for_a_look_is_one() -> None:
    pod = yaml.safe_load((K8S / "look.yaml").read_text())
    custom_kinds.validate(pod)
    [claim] = [volume["persistentVolumeClaim"]["claimName"] for volume in pod["spec"]["volumes"]]
    assert claim in {one["metadata"]["name"] for one in objects("prod", "PersistentVolumeClaim")}
