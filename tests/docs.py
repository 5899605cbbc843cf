"""Extracts the programs of README.md and of nn.h's header block, compiles and runs them, and compares with the output that stands behind."""
import os, re, shlex, subprocess, sys

out = sys.argv[1]
programs = []
block = re.search(r"A complete program.*?\n\n(.*?)\n\n   The ideas", open("nn.h").read(), re.S).group(1)
programs.append(("nn.h", "\n".join(line[7:] for line in block.split("\n")), None))
readme = open("README.md").read()
fences = re.findall(r"```(\w*)\n(.*?)```", readme, re.S)
for i, (kind, text) in enumerate(fences):
    if kind == "c" and "int main" in text:
        after = fences[i + 1] if i + 1 < len(fences) and fences[i + 1][0] == "text" else None
        programs.append((f"README program {len(programs)}", text, after and after[1]))
    elif kind == "c":
        print("a C block in README.md is not a complete program:\n" + text)
        sys.exit(1)
cc = shlex.split(os.environ.get("CC", "cc")) + ["-std=c99", "-O2", "-Wall", "-Wextra", "-I.", "-DTEST_LINKED", "-include", "tests/library.h"]
subprocess.run(["make", "-s", "build/tests/nn_tables.o"], check=True)
for n, (name, text, expected) in enumerate(programs):
    path = os.path.join(out, f"doc{n}.c")
    open(path, "w").write(text)
    subprocess.run(cc + [path, "build/tests/nn_tables.o", "-o", path[:-2], "-lm", "-lpthread"], check=True)
    result = subprocess.run([path[:-2]], stdout=subprocess.PIPE, text=True, timeout=120)
    if result.returncode: sys.exit(f"{name}: exit code {result.returncode}\n{result.stdout}")
    if expected is not None and result.stdout.strip() != expected.strip(): sys.exit(f"{name}: printed\n{result.stdout}\nREADME says\n{expected}")
    print(f"{name}: ok")
