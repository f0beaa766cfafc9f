"""refattn models: what ships with the package, ready to predict."""

import click

from refattn.cli.options import as_json, cell, echo
from refattn.common.strict_json import to_json
from refattn.common.text import counted
from refattn.models import FOLDER, model_names, read_card


@click.command()
@click.argument("name", required=False)
@as_json
def models(name, as_json):
    """The trained models that ship with refattn; of NAME everything that its card says.

    Their names stand for runs: `refattn predict NAME new.xyz`, `refattn explain NAME ...`, `refattn train --init NAME`.
    """
    cards = [read_card(one) for one in ([name] if name else model_names())]
    if as_json:
        echo(to_json(cards[0] if name else cards))
        return
    for card in cards:
        print_card(card, everything=bool(name))
    if not cards:
        echo("no model ships with this version; refattn train makes one")


def print_card(card: dict, everything: bool) -> None:
    """A card: what the model is and is not for, its errors beside those of means; how it was made."""
    size = sum(path.stat().st_size for path in (FOLDER / card["name"]).iterdir()) / 1e6
    echo(f"{card['name']}: {card['description']} ({size:.1f} MB; licence: {card['licence']})")
    for target, found in card["errors"].items():
        parts = [
            f"MAE {cell(found['test']['mae'], '.4g')} on {counted(found['test']['n'], 'structure')} kept for the test"
        ]
        if "split_by" in found:
            parts = [f"{parts[0]}, of new groups (split_by {found['split_by']})"]
            parts.append(f"{cell(found['valid']['mae'], '.4g')} on others of the groups trained on")
        parts += [f"always the training mean {found['baseline_mae']:.4g}"] if "baseline_mae" in found else []
        parts += [f"the mean of the composition {found['composition_mae']:.4g}"] if "composition_mae" in found else []
        for formula, rest in found.get("without", {}).items():
            parts.append(f"{cell(rest['mae'], '.4g')} on the {rest['n']} of the test that are not {formula}")
        unit = f" ({found['unit']})" if found["unit"] else ""
        echo(f"  {target}{unit}: {'; '.join(parts)}")
        if "intervals" in found:
            print_intervals(found["intervals"])
    print_new(card["on_new"])
    for text in card["not_for"]:
        echo(f"  not for {text}")
    if everything:
        echo(f"  trained on: {card['data']}\n  to cite: {card['citation']}\n  made by: {card['command']}")
        earlier = ", ".join(f"{one['seconds']:.0f} s, {one['peak_memory_mb']:.0f} MB" for one in card["before"])
        before = f" (the last training alone; those that it began with: {earlier})" if earlier else ""
        echo(f"  in {card['seconds']:.0f} s, {card['peak_memory_mb']:.0f} MB{before}, with {card['made_with']}")
        echo(f"  SHA-256 of model.h5: {card['sha256']}\n\n{card['config']}")


def print_new(found: list[dict]) -> None:
    """How much worse networks of this recipe are on what is new than on more of the same."""
    if found:
        each = (
            f"{cell(one['mae'], '.3g')} on {one['new']} (more of the same: {cell(one['more_of_the_same'], '.3g')})"
            for one in found
        )
        recipe = f"its recipe with {found[0]['n_train']} structures, {found[0]['target']} ({found[0]['unit']})"
        echo(f"  {recipe}: MAE {'; '.join(each)}")


def print_intervals(found: dict) -> None:
    """How many of the test labels the intervals hold, and how far that may be from what was asked for by chance."""
    wanted, held, expected = (f"{100 * found[name]:.3g} %" for name in ("wanted", "held", "expected"))
    both, test, validation = (f"{100 * found[name]:.2g} %" for name in ("both", "test", "validation"))
    chance = f"expected {expected}, standard deviation {both}"
    parts = f"{test} by the test set, {validation} by the {found['n_valid']} to validate on"
    echo(f"    intervals of {wanted} hold {held} of them ({chance}: {parts})")
