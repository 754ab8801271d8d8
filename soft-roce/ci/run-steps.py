#!/usr/bin/env python3
"""Runs the shell steps of this folder's CI files in a root folder, as a CI's runner would.

    run-steps.py action  ROOT USER FOLDER [INPUT=VALUE…]   the steps of action.yml
    run-steps.py gitlab  ROOT USER FOLDER [VARIABLE=VALUE…]   a job that extends .soft-roce

USER runs the steps inside ROOT, in FOLDER, which is a path inside ROOT; ROOT has the repository in
/repository. The steps of GitHub's own actions are done here: the cache is the folder /cache, and an
artifact goes to /artifacts. The exit status is 0 when every step succeeded, 1 when one failed.
Needs root, and the module yaml.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import yaml

CI = pathlib.Path(__file__).parent
TRIPLE = "x86_64-unknown-linux-gnu"


class Root:
    """The root folder and the user in it."""

    def __init__(self, path, user, folder):
        self.path, self.user, self.folder = pathlib.Path(path), user, folder

    def at(self, inside):
        """Returns the path here of a path inside."""
        return self.path / str(inside).lstrip("/")

    def shell(self, arguments, environment):
        """Runs a shell as the user; returns whether it succeeded."""
        home = "/root" if self.user == "root" else f"/home/{self.user}"
        given = {"HOME": home, "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
        # There is no compiler here that could tell.
        given["CARGO_BUILD_TARGET"] = TRIPLE
        given.update(environment)
        words = [f"{name}={value}" for name, value in given.items()]
        who = f"--userspec={self.user}:{self.user}"
        command = ["chroot", who, self.path, "/usr/bin/env", "-i", *words]
        command += ["/bin/sh", "-c", 'cd "$0" && exec "$@"', self.folder, "/bin/bash", *arguments]
        return subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode == 0


def substitute(text, values):
    """Replaces each expression of a workflow by its value."""
    return re.sub(r"\$\{\{ *(.*?) *\}\}", lambda found: values.get(found[1], ""), str(text))


def holds(condition, values, failed):
    """Evaluates a step's condition: comparisons with strings, and failure(), joined by &&."""
    for part in condition.split("&&"):
        part = part.strip()
        if part == "failure()":
            true = failed
        else:
            name, operator, wanted = re.fullmatch(r"(\S+) (==|!=) '(.*)'", part).groups()
            true = (values.get(name, "") == wanted) == (operator == "==")
        if not true:
            return False
    return not failed or "failure()" in condition


def own_action(root, name, options, step, values):
    """Does what an action of GitHub would do."""
    cache = root.at("/cache") / options["key"] if "key" in options else None
    paths = [root.at(path) for path in options["path"].split()]
    if name == "actions/cache/restore":
        hit = cache.is_dir()
        for path in paths if hit else []:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(cache / path.name, path)
        values[f"steps.{step['id']}.outputs.cache-hit"] = "true" if hit else ""
    elif name == "actions/cache/save":
        cache.mkdir(parents=True)
        for path in paths:
            shutil.copy(path, cache / path.name)
    elif name == "actions/upload-artifact":
        if paths[0].is_dir():
            shutil.copytree(paths[0], root.at("/artifacts") / options["name"])
    else:
        sys.exit(f"{name} is not known here")


def action(root, given):
    """Runs the steps of action.yml; returns whether all succeeded."""
    text = yaml.safe_load((CI / "action.yml").read_text())
    temp = f"{root.folder}/temp"
    values = {"runner.temp": temp, "runner.arch": "X64"}
    for name, about in text["inputs"].items():
        values[f"inputs.{name}"] = given.pop(name, about.get("default", ""))
    if given:
        sys.exit(f"no such input: {' '.join(given)}")
    files = {name: f"{temp}/{name}" for name in ("GITHUB_ENV", "GITHUB_PATH", "GITHUB_OUTPUT")}
    root.at(temp).mkdir(exist_ok=True)
    for path in files.values():
        root.at(path).touch()
        root.at(path).chmod(0o666)
    root.at(temp).chmod(0o777)
    job = {"RUNNER_TEMP": temp, "GITHUB_ACTION_PATH": "/repository/soft-roce/ci", **files}
    failed = False
    for step in text["runs"]["steps"]:
        if not holds(step.get("if", ""), values, failed) if "if" in step else failed:
            continue
        print(f"# {step['name']}", flush=True)
        if "uses" in step:
            options = {key: substitute(value, values) for key, value in step["with"].items()}
            own_action(root, step["uses"].split("@")[0], options, step, values)
            continue
        set_here = {key: substitute(value, values) for key, value in step.get("env", {}).items()}
        script = f"{temp}/step.sh"
        root.at(script).write_text(step["run"])
        environment = {**job, **later(root, files), **set_here}
        options = ["--noprofile", "--norc", "-eo", "pipefail"]
        failed |= not root.shell([*options, script], environment)
        outputs = root.at(files["GITHUB_OUTPUT"])
        for line in outputs.read_text().splitlines():
            key, _, value = line.partition("=")
            values[f"steps.{step['id']}.outputs.{key}"] = value
        outputs.write_text("")
    return not failed


def later(root, files):
    """Returns the environment that earlier steps set for later ones."""
    lines = root.at(files["GITHUB_ENV"]).read_text().splitlines()
    environment = dict(line.split("=", 1) for line in lines)
    paths = root.at(files["GITHUB_PATH"]).read_text().splitlines()
    environment["PATH"] = ":".join([*reversed(paths), "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"])
    return environment


def gitlab(root, given):
    """Runs the lines of a job that extends .soft-roce; returns whether they succeeded."""
    job = yaml.safe_load((CI / "gitlab.yml").read_text())[".soft-roce"]
    script = given.pop("script")
    variables = {**job["variables"], **given, "CI_PROJECT_DIR": root.folder}
    for name, value in variables.items():
        variables[name] = value.replace("$CI_PROJECT_DIR", root.folder)
    lines = ["set -eo pipefail", *job["before_script"], script]
    return root.shell(["-c", "\n".join(lines)], variables)


def main():
    kind, root, user, folder, *given = sys.argv[1:]
    given = dict(word.split("=", 1) for word in given)
    run = {"action": action, "gitlab": gitlab}[kind]
    sys.exit(0 if run(Root(root, user, os.path.normpath(folder)), given) else 1)


main()
