"""The Dockerfile: an image for each service, of a context that has all that it needs and nothing else."""

import json
import pathlib
import re
import shutil
import subprocess
import tempfile

from .tree import HEALTH_PORTS, ROOT, SERVICES, check, text, version

LABELS = {"title", "description", "licenses", "version", "revision"}


def stages():
    """Each stage's name, what it is from, and its instructions."""
    joined = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text("deploy/Dockerfile"), flags=re.M))
    found, arguments = {}, {}
    for line in joined.splitlines():
        instruction, _, rest = line.strip().partition(" ")
        if instruction == "ARG":
            name, _, value = rest.partition("=")
            arguments[name] = value
        elif instruction == "FROM":
            base, name = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()
            for argument, value in arguments.items():
                base = base.replace(f"${{{argument}}}", value)
            found[name] = (base, [])
            current = found[name][1]
        if found and instruction:
            current.append((instruction, rest.strip()))
    return found, arguments


@check
def each_service_has_an_image_that_runs_it_without_root():
    found, _ = stages()
    for service in SERVICES:
        if service not in found:
            yield f"there is no stage {service}"
            continue
        base, own = found[service]
        inherited = found[base][1] if base in found else []
        entry = [json.loads(rest) for instruction, rest in own if instruction == "ENTRYPOINT"]
        if entry != [[f"/usr/local/bin/{service}"]]:
            yield f"{service}: its entry point is {entry}"
        if ("COPY", f"--from=build /out/{service} /usr/local/bin/{service}") not in own:
            yield f"{service}: the program is not copied to where it is started"
        users = [rest for instruction, rest in inherited + own if instruction == "USER"]
        if not users or not re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]):
            yield f"{service}: runs as {users[-1:]}, and must as a number that is not root's"
        asked = [rest.partition("CMD ")[2] for instruction, rest in own if instruction == "HEALTHCHECK"]
        if [json.loads(command) for command in asked] != [[f"/usr/local/bin/{service}", "ready"]]:
            yield f"{service}: its health is asked by {asked}"
        exposed = " ".join(rest for instruction, rest in own if instruction == "EXPOSE").split()
        if exposed != ["8080"] * (service == "api") + [str(HEALTH_PORTS[service])]:
            yield f"{service}: exposes {exposed}"


@check
def images_are_pinned_and_say_what_they_are():
    found, arguments = stages()
    for name, (base, _) in found.items():
        if base not in found and (":" not in base or base.endswith(":latest")):
            yield f"{name}: {base} has no version"
    rust = re.match(r"(\d+\.\d+)", arguments["RUST"])[1]
    wanted = re.search(r'^rust-version = "(.+)"$', text("Cargo.toml"), re.M)[1]
    if rust != wanted:
        yield f"it builds with Rust {rust}, and Cargo.toml says {wanted}"
    for service in SERVICES:
        labels = " ".join(rest for of in ("runtime", service) for instruction, rest in found[of][1] if instruction == "LABEL")
        known = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]+)"', labels))
        if set(known) != LABELS or known["title"] != f"Cuewire {service}":
            yield f"{service}: its labels are {known}"
    if arguments["VERSION"] != version():
        yield f"the images say version {arguments['VERSION']}, and Cargo.toml {version()}"


@check
def it_builds_for_the_base_that_it_runs_on():
    """The programs need glibc, libgcc and certificates, of one Debian: that of the builder."""
    found, arguments = stages()
    if not arguments["RUST"].endswith("-bookworm") or found["runtime"][0] != "gcr.io/distroless/cc-debian12:nonroot":
        yield f"it builds on {arguments['RUST']} for {found['runtime'][0]}"
    build = dict(reversed(found["build"][1]))["RUN"]
    for wanted in ("--locked", "--release", "type=cache,target=/usr/local/cargo/registry", "type=cache,target=/src/target"):
        if wanted not in build:
            yield f"it builds without {wanted}"
    if ("STOPSIGNAL", "SIGTERM") not in found["runtime"][1]:
        yield "services end in order by SIGTERM"


@check
def stages_copy_only_from_stages_before_them():
    found, _ = stages()
    known = []
    for name, (base, instructions) in found.items():
        for instruction, rest in instructions:
            source = re.match(r"--from=(\S+)", rest) if instruction == "COPY" else None
            if source and source[1] not in known:
                yield f"{name} copies from {source[1]}, which is not there yet"
        known.append(name)


def context(directory):
    """Copies what .dockerignore lets through: it names what to keep, after a `*`."""
    lines = [line for line in text(".dockerignore").splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*" and all(line.startswith("!") for line in lines[1:]), "it keeps what it names, and no more"
    for line in lines[1:]:
        source, target = ROOT / line[1:], directory / line[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)


@check
def the_context_has_all_that_is_built():
    """Cargo reads the workspace of the context, as it would in the image."""
    found, _ = stages()
    build = dict(reversed(found["build"][1]))["RUN"]
    wanted = set(re.findall(r"--bin (\S+)", build))
    if wanted != set(SERVICES):
        yield f"it builds {wanted}"
    with tempfile.TemporaryDirectory() as directory:
        kept, directory = pathlib.Path(directory) / "context", pathlib.Path(directory) / "src"
        directory.mkdir()
        context(kept)
        for *sources, target in (rest.split() for instruction, rest in found["build"][1] if instruction == "COPY"):
            for source in sources:
                if not (kept / source).exists():
                    yield f"{source} is copied, and .dockerignore leaves it out"
                elif (kept / source).is_dir():
                    shutil.copytree(kept / source, directory / target)
                else:
                    shutil.copy(kept / source, directory / target)
        metadata = subprocess.run(
            ["cargo", "metadata", "--locked", "--format-version", "1"],
            cwd=directory, capture_output=True, text=True,
        )  # fmt: skip
        if metadata.returncode:
            yield f"cargo cannot read the context: {metadata.stderr}"
            return
        targets = [target for package in json.loads(metadata.stdout)["packages"] for target in package["targets"]
                   if target["src_path"].startswith(str(directory))]  # fmt: skip
        built = {target["name"] for target in targets if "bin" in target["kind"]}
        if not wanted <= built:
            yield f"the context has the programs {built}"
        for target in targets:
            if not pathlib.Path(target["src_path"]).exists():
                yield f"{target['src_path']} is missing in the context"
