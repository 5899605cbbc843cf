"""Checks of nn.h and nn_cuda.h as texts: C++ overloads, the maps of tags, sizes, words."""
import re, sys

text = open("nn.h").read()
api = text[:text.index("#endif // NN_H")]
bad = []

rows = set(re.findall(r"^NN__REF\([^,]+, (nn_\w+),", api, re.M))
for head, args in re.findall(r"^NN_API\s+([^;{]*?)\(([^;]*?)\);", api, re.M | re.S):
    name = re.search(r"(nn_\w+)\s*$", head.strip())
    if name and re.search(r"const nn_\w*desc \*\w+$", " ".join(args.split())) and name.group(1) not in rows:
        bad.append(f"{name.group(1)} takes a desc but has no NN__REF row")

listed = re.findall(r">>(\w+)", text[text.index("Map (search"):text.index("Reading route")])
found = re.findall(r"^// >>(\w+)", text, re.M)
for tag in listed:
    if tag not in found: bad.append(f"the map names >>{tag}, which does not exist")
for tag in found:
    if tag not in listed: bad.append(f">>{tag} is missing in the map")

columns = [i + 1 for i, line in enumerate(text.split("\n")) if len(line) > 200]
if columns: bad.append(f"lines over 200 columns: {columns[:5]}")
if re.search(r"\bcuda", re.sub(r"//.*|/\*.*?\*/", "", text[text.index("#endif // NN_H"):], flags=re.S)): bad.append("the word cuda occurs in the implementation")
cuda = open("nn_cuda.h").read()
if cuda.count("\n") > 6000: bad.append(f"nn_cuda.h has {cuda.count(chr(10))} lines: 6000 are allowed")
if re.search(r"\batomic(?!CAS\(&f->op)", cuda): bad.append("nn_cuda.h: an atomic besides the one for the first bad index")
for tag in re.findall(r">>(\w+)", cuda[cuda.index("Map (search"):cuda.index("*/")]):
    if not re.search(rf"^// >>{tag} ", cuda, re.M): bad.append(f"nn_cuda.h: the map names >>{tag}, which does not exist")
print("\n".join(bad) or "ok")
sys.exit(bool(bad))
