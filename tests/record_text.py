#!/usr/bin/env python3
"""Records what tests/test_text.c replays: tests/golden/text/* from Hugging Face's tokenizers and transformers, and sentencepiece.

    python3 tests/record_text.py           needs tokenizers, sentencepiece, transformers, torch
    python3 tests/record_text.py tables    prints the Unicode tables of >>text (unicodedata2 if it is there, else Python's own)

expected.txt has a record per line; texts are hexadecimal:
    encode <tokenizer> <text> <ids ...>
    words <text> <bytes of each word ...>                               GPT-2's rule
    sample <temperature> <k> <p> <min_p> <penalty> <n> <scores ...> <count> <previous ...> <probabilities ...>
    table <n> <n * n scores>                                            of a toy model: row (3 * last but one + last) % n
    beam <beams> <length penalty> <repetition penalty> <most> <stop> <count> <prompt ...> <new tokens ...>
"""
import os, random, struct, sys

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden", "text")

# ---- the tables ---------------------------------------------------------------------------------------------
N = 0x110000
ALPHABET = "".join(chr(c) for c in range(33, 126) if chr(c) not in '"\\?')       # 90 characters; ? would make trigraphs


def number(v):
    s = ALPHABET[v % 45]
    while v >= 45:
        v //= 45
        s = ALPHABET[45 + v % 45] + s
    return s


def tables():
    try: import unicodedata2 as U
    except ImportError: import unicodedata as U

    def kind(c):
        k = U.category(chr(c))
        return 1 if k[0] == "L" else 2 if k[0] == "N" else 3 if k == "Mn" else 4 if k[0] == "P" else 5 if k[0] == "C" and k != "Cn" else 0

    classes, start = "", 0
    for c in range(1, N + 1):
        if c == N or kind(c) != kind(start):
            classes += number((c - start - 1) * 6 + kind(start))
            start = c
    to = {}
    for c in range(N):
        if 0xD800 <= c < 0xE000 or 0xAC00 <= c < 0xD7A4 or 0xF900 <= c < 0xFB00 or 0x2F800 <= c < 0x2FA20 or kind(c) == 3: continue
        f = "".join(x for x in U.normalize("NFD", chr(c)) if U.category(x) != "Mn").lower()
        if f != chr(c) and len(f) == 1: to[c] = ord(f)
    folds, last, left = "", 0, dict(to)
    while left:
        s, best = min(left), (0, 1, 0)
        for step in (1, 2):
            for same in (0, 1):
                k = 1
                while s + k * step in left and to[s + k * step] == to[s] + (0 if same else k * step): k += 1
                if k > best[0]: best = (k, step, same)
        k, step, same = best
        d = to[s] - s
        folds += number(s - last) + number((k - 1) * 4 + (step - 1) * 2 + same) + number(2 * d if d >= 0 else -2 * d - 1)
        for i in range(k): del left[s + i * step]
        last = s
    print("Unicode", U.unidata_version, file=sys.stderr)
    for name, text in (("nn__class_runs", classes), ("nn__fold_runs", folds)):
        print("static const char %s[] =" % name)
        print("\n".join('    "%s"' % text[i:i + 132] for i in range(0, len(text), 132)) + ";")


# ---- texts ----------------------------------------------------------------------------------------------------
SAMPLE = open(os.path.join(os.path.dirname(HERE), "..", "..", "nn.h"), encoding="utf8").read(4000)
TRAIN = ["""The tokens of a text are numbers. A tokenizer that is trained on a text finds the pairs of tokens that stand beside each other most often,
and joins them, again and again; what it has joined are the longer tokens. It isn't the only way to do it, but it's the one that we'll use:
they've said that I'd better, and you're right. In 1998, 2 of 3 numbers were 12345. Zwölf Boxkämpfer jagen Viktor quer über den großen
Sylter Deich; où est l'élève? Съешь ещё этих мягких французских булок, да выпей чаю. 今日は良い天気です。 대한민국 ÀÉÎ naïve café."""] * 3
TEXTS = ["The tokens", "hello  world", "   leading and trailing   ", "It's what they'll've done, isn't it? I'M HERE.", "tabs\tand\n\nnew lines \n end",
         "Viktor über den Deich, où élève", "Съешь ещё этих булок", "今日は良い天気です。中文 mixed中文text", "대한민국 한국어", "12345 1998 ½ Ⅷ 3.14159 v2.0", "e\u0301 cafe\u0301 ÀÉÎÕÜ naïve",
         "emoji 😀👍🏽 zwj 👨‍👩‍👧", "a\u00a0b\u3000c\u2009d", "x" * 300, " " * 40, "\u200b\ufeffzero\u0000width".replace("\u0000", ""), "ǅ ﬁ Ω Å İ ı ß ẞ", "!?.,;:'\"()[]{}<>@#$%^&*-_=+~`|/\\",
         "aaaaaaaaaaaaabbbbbbaaabababab", "supercalifragilisticexpialidocious" * 4, "[CLS] a [MASK] token [SEP]", "≠ ≮ \u1fef", "\r\n windows\r\n", SAMPLE[:700]]


def random_texts(count):
    r = random.Random(5)
    pools = [list(range(32, 127)) + [10, 32, 32, 39], list(range(0xC0, 0x180)), list(range(0x391, 0x3A2)) + list(range(0x410, 0x450)), [0x20, 0xA0, 10, 9], list(range(0x4E00, 0x4E40)) + list(range(0xAC00, 0xAC40))]
    return ["".join(chr(r.choice(r.choice(pools))) for _ in range(r.randint(1, 40))) for _ in range(count)]


# ---- recording -----------------------------------------------------------------------------------------------
def record():
    import torch, sentencepiece
    from tokenizers import Tokenizer, models, pre_tokenizers, decoders, trainers, BertWordPieceTokenizer
    from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel
    from transformers.generation import GenerationMixin
    from transformers.generation import logits_process as P
    from transformers.modeling_outputs import CausalLMOutput
    os.makedirs(HERE, exist_ok=True)
    lines, texts = [], TEXTS + random_texts(60)
    ids = lambda l: " ".join(str(int(i)) for i in l)
    hexed = lambda f: " ".join("%.9g" % x for x in f)
    put = lambda *a: lines.append(" ".join(str(x) for x in a))
    add = lambda name, text, tokens: put("encode", name, text.encode().hex() or "-", ids(tokens))

    t = Tokenizer(models.BPE())
    t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    t.train_from_iterator(TRAIN, trainers.BpeTrainer(vocab_size=400, min_frequency=2, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    t.model.save(HERE, "bpe")
    t.add_special_tokens(["<|endoftext|>"])
    t.save(os.path.join(HERE, "bpe.json"), pretty=False)
    open(os.path.join(HERE, "train.txt"), "w", encoding="utf8").write("".join(TRAIN))
    for x in texts:
        add("bpe", x, t.encode(x).ids)
        put("words", x.encode().hex(), ids(len(x[a:b].encode()) for _, (a, b) in t.pre_tokenizer.pre_tokenize_str(x)))
    add("json", "one<|endoftext|>two", t.encode("one<|endoftext|>two").ids)

    for lower in (True, False):
        name = "wordpiece" if lower else "cased"
        w = BertWordPieceTokenizer(lowercase=lower)
        w.train_from_iterator(TRAIN, vocab_size=300, min_frequency=2, show_progress=False, limit_alphabet=150)
        w.save_model(HERE, name)
        for x in texts: add(name, x, w.encode(x, add_special_tokens=False).ids)

    model = os.path.join(HERE, "llama")
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter("".join(TRAIN).split("\n")), model_prefix=model, vocab_size=420, model_type="bpe", byte_fallback=True, split_digits=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=0.98, allow_whitespace_only_pieces=True, minloglevel=2)
    s = sentencepiece.SentencePieceProcessor(model_file=model + ".model")
    pieces = [{1: "\n<s>\n", 2: "\n</s>\n"}.get(i, s.id_to_piece(i)).replace("\u2581", " ").encode() for i in range(s.get_piece_size())]
    with open(model + ".bin", "wb") as f:
        f.write(struct.pack("<i", max(map(len, pieces))))
        for i, p in enumerate(pieces): f.write(struct.pack("<fi", s.get_score(i), len(p)) + p)
    os.remove(model + ".model"); os.remove(model + ".vocab")
    for x in texts: add("llama", x, s.encode(x))

    g = torch.Generator().manual_seed(1)
    for temperature, k, p, min_p, penalty in [(1, 0, 0, 0, 0), (0.5, 0, 0, 0, 0), (1, 3, 0, 0, 0), (1, 0, 0.6, 0, 0), (1, 0, 0, 0.2, 0), (1, 0, 0, 0, 1.5), (0.8, 8, 0.9, 0.05, 1.3), (2, 100, 0.95, 0.3, 0.7),
                                              (1, 1, 0, 0, 0), (1, 0, 0.01, 0, 0), (1, 0, 0, 1, 0), (1.7, 5, 0.5, 0.1, 2)]:
        n = 16
        scores = (torch.randn(n, generator=g) * 3).round(decimals=3)
        if k == 3: scores[:6] = scores.max()             # equals of the last one stay
        if k == 8: scores[2] = -torch.inf
        previous = torch.randint(0, n, (5,), generator=g)
        z = scores.double()[None]
        if penalty: z = P.RepetitionPenaltyLogitsProcessor(float(penalty))(previous[None], z)
        z = P.TemperatureLogitsWarper(float(temperature))(None, z)
        if k: z = P.TopKLogitsWarper(k)(None, z)
        if p: z = P.TopPLogitsWarper(float(p))(None, z)
        if min_p: z = P.MinPLogitsWarper(float(min_p))(None, z)
        put("sample", temperature, k, p, min_p, penalty, n, hexed(scores), len(previous), ids(previous), hexed(z.softmax(-1)[0]))

    n = 11
    table = (torch.randn(n, n, generator=g) * 2).round(decimals=3)
    table[:, 0] += 1                                     # token 0 stops
    put("table", n, hexed(table.flatten()))

    class Toy(PreTrainedModel, GenerationMixin):
        config_class = PretrainedConfig
        def __init__(self, config):
            super().__init__(config)
            self.w = torch.nn.Parameter(torch.zeros(1))
        def forward(self, input_ids, **kw):
            before = torch.cat([torch.zeros_like(input_ids[:, :1]), input_ids[:, :-1]], 1)
            return CausalLMOutput(logits=table[(3 * before + input_ids) % n])
        def prepare_inputs_for_generation(self, input_ids, **kw): return {"input_ids": input_ids}
        def _supports_default_dynamic_cache(self): return False
    toy = Toy(PretrainedConfig(vocab_size=n, is_encoder_decoder=False))
    for beams, length_penalty, penalty, most, stop, prompt in [(2, 1, 0, 6, 0, [3]), (4, 1, 0, 12, 0, [5, 7]), (3, 0, 0, 10, 0, [1]), (5, 2, 0, 9, 0, [2, 9, 4]), (4, -1, 0, 8, 0, [8]), (3, 1, 1.4, 10, 0, [6, 6]),
                                                                (1, 1, 0, 8, 0, [4, 2]), (4, 1, 0, 5, 10, [10, 3]), (8, 1.5, 1.2, 20, 0, [7])]:
        c = GenerationConfig(num_beams=beams, do_sample=False, max_new_tokens=most, eos_token_id=stop, pad_token_id=stop, length_penalty=float(length_penalty), use_cache=False, **({"repetition_penalty": penalty} if penalty else {}))
        out = toy.generate(torch.tensor([prompt]), generation_config=c)[0, len(prompt):].tolist()
        if stop in out: out = out[:out.index(stop) + 1]
        put("beam", beams, length_penalty, penalty, most, stop, len(prompt), ids(prompt), ids(out))
    open(os.path.join(HERE, "expected.txt"), "w").write("\n".join(lines) + "\n")
    for f in sorted(os.listdir(HERE)): print("%-24s %7d bytes" % (f, os.path.getsize(os.path.join(HERE, f))))


tables() if "tables" in sys.argv else record()
