// Writes src/Text/Tokenizers/properties.txt: properties of characters and every script, which .NET does not know, from
// this Node's Unicode. A line: the name as regular expressions write it; its stretches of code points.
import { writeFileSync } from "node:fs";

const scripts = `Adlam Ahom Anatolian_Hieroglyphs Arabic Armenian Avestan Balinese Bamum Bassa_Vah Batak Bengali Bhaiksuki Bopomofo Brahmi Braille
Buginese Buhid Canadian_Aboriginal Carian Caucasian_Albanian Chakma Cham Cherokee Chorasmian Common Coptic Cuneiform Cypriot Cypro_Minoan Cyrillic
Deseret Devanagari Dives_Akuru Dogra Duployan Egyptian_Hieroglyphs Elbasan Elymaic Ethiopic Georgian Glagolitic Gothic Grantha Greek Gujarati
Gunjala_Gondi Gurmukhi Han Hangul Hanifi_Rohingya Hanunoo Hatran Hebrew Hiragana Imperial_Aramaic Inherited Inscriptional_Pahlavi
Inscriptional_Parthian Javanese Kaithi Kannada Katakana Kawi Kayah_Li Kharoshthi Khitan_Small_Script Khmer Khojki Khudawadi Lao Latin Lepcha Limbu
Linear_A Linear_B Lisu Lycian Lydian Mahajani Makasar Malayalam Mandaic Manichaean Marchen Masaram_Gondi Medefaidrin Meetei_Mayek Mende_Kikakui
Meroitic_Cursive Meroitic_Hieroglyphs Miao Modi Mongolian Mro Multani Myanmar Nabataean Nag_Mundari Nandinagari New_Tai_Lue Newa Nko Nushu
Nyiakeng_Puachue_Hmong Ogham Ol_Chiki Old_Hungarian Old_Italic Old_North_Arabian Old_Permic Old_Persian Old_Sogdian Old_South_Arabian Old_Turkic
Old_Uyghur Oriya Osage Osmanya Pahawh_Hmong Palmyrene Pau_Cin_Hau Phags_Pa Phoenician Psalter_Pahlavi Rejang Runic Samaritan Saurashtra Sharada
Shavian Siddham SignWriting Sinhala Sogdian Sora_Sompeng Soyombo Sundanese Syloti_Nagri Syriac Tagalog Tagbanwa Tai_Le Tai_Tham Tai_Viet Takri Tamil
Tangsa Tangut Telugu Thaana Thai Tibetan Tifinagh Tirhuta Toto Ugaritic Vai Vithkuqi Wancho Warang_Citi Yezidi Yi Zanabazar_Square`.split(/\s+/);

const stretches = (pattern) => {
  const found = [];
  for (let code = 0; code <= 0x10ffff; code++) {
    if ((code >= 0xd800 && code < 0xe000) || !pattern.test(String.fromCodePoint(code))) continue;
    if (found.at(-1)?.[1] === code - 1) found.at(-1)[1] = code;
    else found.push([code, code]);
  }
  return found.map(([from, to]) => from.toString(16) + (to > from ? `-${to.toString(16)}` : "")).join(" ");
};
const properties = ["Alphabetic", "Uppercase", "Lowercase", "Emoji"];
const lines = [...properties.map((name) => [name, name]), ...scripts.map((script) => [script, `Script=${script}`])].map(([name, property]) => `${name};${stretches(new RegExp(`\\p{${property}}`, "u"))}`);
const head = `# Unicode ${process.versions.unicode}; made by tests/oracles/make_properties.mjs\n`;
writeFileSync(new URL("../../src/Text/Tokenizers/properties.txt", import.meta.url), head + lines.join("\n") + "\n");
