"""CIFAR-100 (Krizhevsky 2009): a hundred classes of 600 images, in twenty groups of five. CIFAR-10's page reads it.

A record has two label bytes: first the group ("coarse"), then the class ("fine").
"""
from dataclasses import replace

from .cifar10 import Records, load_records
from .sources import Remote, Source

FINE = tuple("""
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm
""".split())
COARSE = tuple("""
    aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices household_furniture
    insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes large_omnivores_and_herbivores
    medium_mammals non-insect_invertebrates people reptiles small_mammals trees vehicles_1 vehicles_2
""".split())
CIFAR100 = Records(
    Source("cifar100", "CIFAR-100", folders=("cifar-100-binary",), unpacked=("train.bin", "test.bin"),
           unread=("cifar-100-python", "cifar-100-python.tar.gz"),
           remotes=(Remote("cifar-100-binary.tar.gz", ("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",),
                           168_513_733, "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"),)),
    classes=FINE, train_files=(("train.bin", 50_000),), test_file=("test.bin", 10_000), label_bytes=2, label=1)


def coarse(records):
    """The same files with the twenty groups as classes."""
    return replace(records, name="cifar100-coarse", classes=COARSE, label=0)


def load(data_dir=None, img_size=None, download=True, progress=None, records=None):
    """CIFAR-100 with its hundred classes, from the first place that has it, else by download. See cifar10.load."""
    return load_records(records or CIFAR100, data_dir, img_size, download, progress)


def load_coarse(data_dir=None, img_size=None, download=True, progress=None, records=None):
    """CIFAR-100 with its twenty groups as classes. See cifar10.load."""
    return load_records(coarse(records or CIFAR100), data_dir, img_size, download, progress)
