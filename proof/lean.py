"""A part of the service as a crate of its own, with the service's own versions of what it uses: built in seconds instead of a minute."""
import json, os, re, shutil, tomllib

from common import ROOT


def crate(folder, parts, library, more=""):
    """`parts`: files and folders of src; `library`: the text of src/lib.rs; `more`: more dependencies, as lines of Cargo.toml."""
    with open(f"{ROOT}/Cargo.toml", "rb") as file:
        whole = tomllib.load(file)
    for name in parts:
        origin, copy = f"{ROOT}/src/{name}", f"{folder}/src/{name}"
        os.makedirs(os.path.dirname(copy), exist_ok=True)
        if os.path.isdir(origin):
            shutil.copytree(origin, copy, dirs_exist_ok=True)
        else:
            shutil.copy(origin, copy)
    text = ""
    for place, _, files in os.walk(f"{folder}/src"):
        for name in files:
            with open(os.path.join(place, name)) as file:
                text += file.read()

    def line(name, wanted):
        return f"{name} = {{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in wanted.items() if key != "optional") + " }"

    used = {name: wanted if isinstance(wanted, dict) else {"version": wanted}
            for section in ("dependencies", "dev-dependencies") for name, wanted in whole[section].items()
            if re.search(rf"\b{name.replace('-', '_')}\b(::|!)", text)}
    with open(f"{folder}/Cargo.toml", "w") as file:
        file.write('[package]\nname = "lean"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n[lib]\ndoctest = false\n[features]\nplanted = []\n')
        file.write("[profile.dev]\ndebug = false\n[dependencies]\n" + "\n".join(line(*one) for one in used.items()) + f"\n{more}\n")
    with open(f"{folder}/src/lib.rs", "w") as file:
        file.write(library)
    shutil.copy(f"{ROOT}/Cargo.lock", f"{folder}/Cargo.lock")
