"""Answer questions with a local model, and cite the training documents behind each answer.

    python examples/cite/cite.py http://127.0.0.1:8080/jargon path/to/model "A byte is" "A race condition is"

The model speaks here; the service that `gindex serve` runs knows what it learnt from. Each answer is cut into sentences
and every sentence is looked up on its own, so that each has its own sources.
"""

import argparse
import re

from transformers import AutoModelForCausalLM, AutoTokenizer

from gindex.client import Client
from gindex.queries.query import Query

SHOWN = 90


def answer(model, tokenizer, prompt: str, length: int) -> str:
    """Go on from a prompt, the likeliest token each time."""
    ids = tokenizer(prompt, return_tensors="pt")
    out = model.generate(**ids, max_new_tokens=length, do_sample=False, pad_token_id=tokenizer.eos_token_id)
    before, whole = (tokenizer.decode(text[0], skip_special_tokens=True) for text in (ids["input_ids"], out))
    return whole[len(before) :]  # decoded alone, the answer may lose its first space


def sentences(text: str) -> list[str]:
    """Cut a text after full stops; white space stays with the sentence that follows it."""
    return [part for part in re.findall(r"\s*[^.!?]+[.!?]*", text) if part.strip()]


def main() -> None:
    """Answer every prompt and cite."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("service", help="http://host:port/name of an index")
    parser.add_argument("model", help="folder or hub name of the model that the index was built with")
    parser.add_argument("prompts", nargs="+")
    parser.add_argument("--sources", type=int, default=2)
    parser.add_argument("--length", type=int, default=40)
    given = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    model = AutoModelForCausalLM.from_pretrained(given.model).eval()
    with Client(given.service) as client:
        for prompt in given.prompts:
            said, sofar, queries = sentences(answer(model, tokenizer, prompt, given.length)), prompt, []
            for sentence in said:
                queries.append(Query(prompt=sofar, completion=sentence))
                sofar += sentence
            print(f"\n{sofar}\n")
            found = client.search_many(queries, k=given.sources, hits="document")
            for sentence, result in zip(said, found, strict=True):
                print(f"  “{sentence.strip()}”")
                for hit in result.hits:
                    text = " ".join(hit.text.split())[:SHOWN]
                    print(f"    {hit.score:+10.4g}  {hit.document_id}: {text}")


if __name__ == "__main__":
    main()
