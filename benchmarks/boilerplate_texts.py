"""Texts for `benchmarks.boilerplate`: phrases of each kind of boilerplate, and captions that only resemble them.

All are made up. Words and patterns were written with those of `KINDS` and `REAL` in view. Those of `LATER` were written
afterwards, and nothing was changed for them."""

from __future__ import annotations

KINDS = {
    "dates": """
Photographed on 4 June 2011|Picture taken on June 4, 2011|Taken 4/6/2011|Uploaded on June 4th, 2011
Photo taken in July 2008|taken on a Sunday afternoon in May 2010|Shot on 14 August 2013 at 7:15 pm
Posted on March 3, 2012|Date taken: 2012-03-03|Photo date: 3 March 2012|Originally taken on 3.3.2012
This image was taken on 3 March 2012|Scanned on 5 May 2006|Created on 2009-11-30
Captured with my phone on 30 November 2009|Taken at 10:45 on 30 November 2009|Filmed on 1 May 2014
Photo shot in the autumn of 1998|taken sometime in the 1970s|Picture from 12 August 2005
Photograph dated 12 August 1905|Photos taken between 3 and 5 May 2011|Taken during our holiday in August 2007
Last modified on 5 May 2011 at 10:00|Added on 12 December 2012|Published on 12 December 2012|Updated: 12 December 2012
Image uploaded 12 December 2012 by admin|This picture was taken last summer|Photo taken yesterday|taken this morning
Taken earlier today with my phone|Taken on Christmas Day 2009|Photo taken on New Year's Eve 2010
12 December 2012, 12:12|Saturday, 5 May 2011|May 5, 2011 at 4:15 pm|05/05/2011 16:15|Created: May 5, 2011
Taken by me on 5 May 2011|Photographed by the author on 5 May 2011|Pictured on 22 November 2013|Photo: 9 June 2006
This photo was taken in 1994|Taken in the summer of 2004|Picture taken at 3pm on Saturday|Photographed 18/02/2009
taken 2nd of May 2011|Recorded on 14 March 2015|Image created 2 October 2007|Photo from 30 April 2014
Date of photo: 1 September 2010|Digitized on 12 January 2005|Picture made in July 2003|Last updated 8 May 2016
Taken during the afternoon of 3 March 2010|Image taken sometime around 1965
Photographed on a rainy day in October 2012|Taken two days ago|Shot in December|Photo date unknown
Photographed in the first week of May 2012|Snap from 5 October 2008|Captured on Sunday, 8 April 2018
Photo taken back in 1987|Taken late in the evening|Date: 17/08/2006|Image dated June 1999|Taken on Easter Monday 2010
Shot early this morning|Photographed one winter day in 2005|Picture from last weekend
Photo created on 6 June 2009 at 18:40|Uploaded two years ago|Scan made in 2011|Taken on the last day of our holiday
Film developed in March 1982|Photographed at midnight on 31 December 1999|Added 3 weeks ago|2014:08:02 13:22:41
August 2011|Photo from the 12th of June 2006|Captured one evening in late March|Taken at sunrise on 9/9/2009
Shot during the winter of 2013|Photograph made around 1920|Uploaded: January 3rd, 2014|Image date 2008-07-16
Taken some weeks ago|Pictures taken over the weekend|Last edited on 2 May 2017|Photo taken on my birthday in 2011
Recorded at 11:20 am on 4 May 2016|Photographed 10 November 2001|Taken about 1955|Image shot on 25/12/2014
Pictured last Tuesday|Photo made on 3 July 1999 at noon|Snapped in mid-August 2010
Taken at about 9 o'clock in the morning|Scanned February 2009|Shot over the summer holidays|File created 7 April 2013
Photographs taken from 2 to 9 June 2012|Date taken 2015|Photo taken on 19 February 2006|Taken in early autumn
Image captured Friday 13 May 2011|Photographed in the late 1980s|Shot on the morning of 2 July
Picture dated 4 May 1931|Uploaded on Christmas Eve|Snapshot from August 2003|Taken approximately ten years ago
Date created: 2011-05-06|Snapped on 17 September 2014|Photograph taken 1 Jan 2000|Image captured at dawn on 9 May 2015
Uploaded last night|Date: 8 August 1988|Taken on the evening of 6 July 2012|Photographed in early spring 2011
Scanned in 2007|Shot this afternoon|6 Aug 2010 11:32
""",
    "cameras": """
Canon EOS 5D Mark II|Nikon D90 with 18-105mm lens|Canon PowerShot SX20 IS|Sony Alpha A7 III|Panasonic Lumix DMC-FZ50
Canon EF 24-70mm f/2.8L USM|Nikkor 50mm f/1.8D|Fujifilm X-T2 XF 35mm|Olympus OM-D E-M5
iPhone 6s back camera 4.15mm f/2.2|Leica M6, Summicron 50mm, Tri-X 400|Pentax K1000 + Kodak Gold 200
Hasselblad 500C/M with Planar 80mm|Rolleiflex, Ilford HP5|Canon EOS 400D Digital with EF-S 18-55mm|Samsung Galaxy S7
NIKON D5100|HTC One M8 camera|Shot on iPhone|Taken with an iPhone|Minolta Dynax 7D|Sigma 10-20mm f/4-5.6 EX DC
Tamron 90mm macro lens|Zenit-E Helios 44-2|Yashica Mat 124G on Portra 160|Lens: Canon EF 100mm f/2.8 Macro
Camera: Nikon D7000|Nikon D800 + Nikkor 14-24mm f/2.8G|GoPro HERO4 Black|DJI Phantom 3|Kodak Ektar 100, Canon AE-1
Polaroid SX-70|Konica Minolta DiMAGE Z3|Sony Cyber-shot DSC-W80|Ricoh GR II|Canon EOS 7D, EF 70-200mm f/4L
Nikon D3200 18-55mm VR|Sony NEX-6|Panasonic Lumix DMC-TZ7|Fuji X100S|Olympus E-PL3|Canon PowerShot G12
Pentax K-x with DA 50-200|Leica M9 + Summilux 50|Nikon FM2 on Ilford Delta 400|Holga 120N|Samsung NX300
Canon Rebel T3i with kit lens|Mamiya RB67 Kodak Ektar|Lens: Sigma 105mm macro|Nokia Lumia 1020|Camera Sony A6000
Huawei P20 Pro|Nikon Coolpix 4500|Google Pixel 3|Canon EOS Rebel XSi|Nikon D300s + 16-85mm VR|Sony RX100 III
Panasonic DMC-FZ200|Fujifilm X-E1 with 18-55mm|Olympus Camedia C-5050|Canon IXUS 115 HS
Pentax ME Super, Fuji Superia 400|Contax T2, Kodak Gold 200|Yashica Electro 35 GSN|Casio Exilim EX-Z750
Ricoh GXR A12 28mm|LG G4 camera|Canon EF-S 10-22mm on EOS 50D|Sigma 150-600mm Contemporary
Olympus Trip 35 and Ilford FP4|Lens: Nikkor 35mm f/2D|Kodak EasyShare Z612|Rollei 35 SE|Motorola Moto G camera
Nikon D7100 and Tokina 11-16mm|Canon 5D Mk III|Sony A7R II + 24-70 GM|Fujifilm GFX 50S|Olympus XA2, Agfa Vista 200
Pentax 67 105mm f/2.4|Panasonic GX85 kit lens|Samsung WB250F|iPhone X back dual camera|Nikon 1 J5|Canon SX50 HS
Zeiss Ikon Contessa|Nikon D610 50mm f/1.8G|Canon EOS M50 with 22mm lens|Sony Alpha 6300|Olympus OM-1, Kodak Tri-X
Panasonic Lumix DMC-LX100|Fujifilm Instax Mini 90|Canon PowerShot A590 IS|Pentax Optio W60|Leica D-Lux 4
Minolta SRT 101 Rokkor 50mm|Samsung Galaxy Note 8|Hasselblad 503CX Fuji Provia 100F|Canon EOS 1100D
Nikon D5600 with 35mm lens|Sony DSC-RX10|Lumix GF1 20mm pancake|Fuji X-Pro1|Olympus E-M10 Mark II|Kodak Brownie
Voigtländer Bessa R3A|Canon FD 50mm on Sony A7|Pentax K200D|Canon EOS 60D + Tamron 18-270mm|Nikon Coolpix P900
Sony DSC-H300|Olympus Stylus 1030 SW|Fujifilm FinePix S9600|Pentax K-5 II|Panasonic Lumix G7 with 14-140mm|Leica Q2
Minolta X-700, Kodak Portra 400|iPhone 11 Pro Max
""",
    "exposure": """
f/8, 1/250 s, ISO 100|1/60 sec at f/4.0, ISO 800|ISO 200 50mm f/1.8 1/125|Exposure: 30 s at f/11
30 sec exposure, f/8, ISO 400|f/2.8 1/500s 200mm|Aperture f/5.6, shutter speed 1/200
Shutter speed 1/1000, aperture f/4, ISO 400|70mm, f/16, 0.5 sec|HDR from 3 exposures|3 exposure HDR
5 exposures +/- 2 EV|Exposure time 1/80 sec (0.0125)|F-number f/3.5 ISO speed rating 400|Focal length 35 mm
ISO 1600, hand held|Flash: on, ISO 100, 1/60|EXIF: 1/200, f/7.1, ISO 100|Exposure 0.004 sec (1/250)
Strobist: SB-600 camera left at 1/4 power|Strobist info: one flash in softbox|HDR tonemapped in Photomatix
Processed in Lightroom|f/4.5, 1/160, ISO 250|ISO 100, f16, 1/125 sec|1/4000s f/2.8 ISO 400|Exposure: 1/60 sec, f/2.8
Shutter 1/50 aperture f/1.8 ISO 800|ISO: 640|Focal Length: 24mm|Aperture: f/5|Exposure Time: 2 seconds
4 second exposure at f/16|HDR of 5 shots|9 exposures blended in Photomatix|Shutter speed 30 seconds|flash did not fire
ISO400, 85mm, f/2|Exposure bias -1/3 EV|1/100 second at f/6.3|Three exposure HDR, tone mapped
1/800 sec at f/3.5, ISO 100|f/1.2 @ 1/2000|ISO 12800, 1/40s, f/4|Exposure time: 15 seconds
Aperture f/2.8, ISO 1600, 20 s|Focal length 300mm (35mm equivalent)|7 frame HDR|HDR, 5 brackets, +/-1 EV
Two minute exposure with ND filter|White balance: auto|Metering mode: spot|Flash used: no|Bulb exposure, 4 minutes
EV +0.7, ISO 320|Shot at f/8 and ISO 200|Manual mode, 1/60, f/5.6|105mm, 1/250, f/4, ISO 640
Photomatix HDR from 3 RAW files|ISO-100 f/11 1/90 sec.|f5.6 1/400 ISO200|25 second exposure, f/2.8, ISO 3200
Shutter: 1/1250, Aperture: f/4|HDR image from five exposures|Focal length 18.0 mm|Light meter reading f/8 at 1/125
Exposure mode: manual|Stack of 20 exposures|ISO setting 800|1/13 sec, hand held, ISO 1600|+0.3 EV
f/13, 1/100 s, ISO 125|ISO 800 1/60 f/5.6 55mm|Exposure: 8 sec at f/22|Shutter speed of 1/500 second
Aperture priority, f/8|HDR, tone mapping in Photomatix Pro|30 minute exposure|Focal Length 70 mm|Flash fired, 1/60
3 shots HDR|1/2000 f/4.5 ISO 500 400mm|Exposure compensation -0.7|1/15 s, f/3.5, ISO 400|ISO 64, 1/250 at f/4
Long exposure, 20 seconds|Aperture f/16|Shutter speed 1/60, ISO 200|HDR from three RAW photos
Focal length: 400 mm, f/5.6|Spot metering, f/4|no flash, 1/30 sec|Exposure data: 1/500, f/8|1/320 f/9 ISO 200
ISO 3200, f/1.4, 1/30|Shutter speed: 1/15 sec|Exposure 1/640 at f/7.1|7 exposure HDR|Focal length: 200 mm
10 mm, f/11, 1/60 s|Aperture: f/22
""",
    "taken with": """
Taken with my phone|Taken with my new camera|Shot with my old Nikon|taken with a digital camera
Photo taken with my cell phone|Taken with Instagram|Taken with Hipstamatic|Taken using a Canon camera
Captured with my iPhone|Sent from my iPhone|Photographed with a Pentax K10D|Picture taken with my webcam
Taken from my phone|Uploaded with my mobile|Made with Photoshop|Edited with Snapseed|Edited in Lightroom
Created with GIMP|Scanned from a slide|Scanned with an Epson scanner|Filter: Amaro|Posted via email from my phone
Taken handheld without tripod|taken with a tripod|Taken with my old camera|Shot with an iPhone 6|Captured with a GoPro
taken using my mobile phone|Photo taken with a disposable camera|Shot using a telephoto lens|Uploaded from my iPhone
Edited using Lightroom|Processed in Photoshop|Made with Instagram|Posted from my Android phone|Taken with a Nikon D80
Picture taken with my tablet|Taken by my phone|Scanned from a print|Shot on Kodak film
Taken through a window with my phone|Cropped in GIMP|Taken with a pocket camera|Shot on an old Polaroid camera
Photographed with my daughter's phone|Captured by drone|Taken with the camera of my laptop|Shot with a fisheye lens
Processed with VSCO with f2 preset|Edited in Photoshop Elements|Uploaded using the Flickr app
Taken with a borrowed Canon|Photo made with my iPad mini|Created in Illustrator|Scanned from a 35mm negative
Scanned with my flatbed scanner|Taken without flash|Taken from the car with my phone|Shot handheld at night
Made with PicsArt|Taken using my wife's camera|Shot with a cheap webcam|Captured on 35mm film
Photographed using an iPhone 4|Sent via my mobile|Image processed in Capture One|Retouched in Photoshop
Taken with a long zoom lens|Scanned on a flatbed|Posted using Instagram|Photo edited with Picasa 3
Taken with self timer|Shot with my new lens|Taken with a phone camera|Captured with my Sony|Photo taken using an iPad
Edited in Snapseed and Instagram|Uploaded by email from my phone|Made in GIMP|Taken with the old digital camera
Scanned from a colour slide|Photographed with available light|Taken with a tripod and remote
Sent from my Samsung Galaxy|Taken with an old film camera|Shot on my phone|Captured with Canon 60D
Scanned from an old print|Processed with Lightroom presets|Posted from my phone|Taken through glass|Made using Canva
Photo taken with zoom|Filmed with a drone|Taken with my Samsung phone|Captured using a drone
Shot on film with my Nikon|Taken on my iPad|Edited with Photoshop CS5|Snapped with my phone camera
Scanned from an old negative|Sent from my mobile
""",
    "commons": """
Own work|Self-made|Photo by uploader|Uploader's own work|Description unavailable|No machine-readable author provided
Transferred from en.wikipedia to Commons|This is a file from the Wikimedia Commons|Picture taken by myself
Photograph by the uploader|Image from the public domain|see file description page|See below|Source: own photo
Picture of the day|Original uploader was Jo at en.wikipedia|Created by the uploader using Inkscape|Self-photographed
Transferred by Jo Doe|User-created|Own photo|photo taken by author|I took this picture myself|Made by me|Taken by me
work by the author|Author's own photograph|personal photo of the uploader
I, the copyright holder of this work, release it into the public domain|The original description page was here
Uploaded with UploadWizard|Uploaded by Commonist|This image was selected as picture of the day
From Wikimedia Commons, the free media repository|Own photograph|Own work by the uploader|Photo by author
Taken by the uploader|Self made|Created by uploader|Transferred from the English Wikipedia|Image by uploader
This file was uploaded with Commonist|Source: own work|Picture by myself|Made by uploader using GIMP|Self photographed
Original upload by the author at en.wikipedia|My own photo|Author: uploader|Photo taken by me|Description missing
No description|Photograph taken by the author|Own work, taken with my camera|Uploader's own photo
Photo by original uploader|Taken by user|Image created by the author|Drawn by the uploader
Moved from en.wikipedia to Commons|Transferred from nl.wikipedia|Bot upload|Source: self-made|Author's own work
Photograph taken by uploader in 2008|Scan by uploader|Uploaded by bot|Made by the uploader with Inkscape
Own work by author|I made this image myself|My own work|Photographer: uploader|Missing description
Work of the uploader|This image was made by me|Uploader is the author|Original photo by uploader
Transferred from it.wikipedia|Upload by author|Photo taken by User:Foo|Self-created image|Made by the author himself
own work (own photo)|Image uploaded by the photographer|No author information|Own work by uploader
Photo taken by the author|Picture taken by uploader|self-made image|Author's photo
Transferred from fr.wikipedia by a bot|Uploaded by me|Created by me with Inkscape|Photograph by author
The uploader's own work|I photographed this myself|Image from Wikimedia Commons|Own work (original text: own work)
Photo by the uploader|Created by author|Taken by me in 2007|Uploaded from en.wikipedia|Self taken photo
Image made by the uploader|Picture of the author's own|Transferred to Commons by a bot|Description page was here
Photographed by the uploader|Own picture|Image by the author|Transferred from de.wikipedia|Drawn by me
See the description page|Uploaded by the author|Self-taken
""",
    "alt text": """
image|Image 1 of 5|Slide 3|thumbnail image|Placeholder image|no alt text provided for this image|Alternative text
alt text|Image not found|photo not available|Loading image|Image coming soon|image placeholder|blank image
untitled image|default avatar|company logo image|site logo|header image|background image|user avatar|profile photo
banner image|Image for post|Image for article|Post thumbnail|Featured Image|Product image 2|Main product photo
Gallery image 4|Cover photo|Insert image here|image alt text|Picture of the product|click for image|Article image
Blog post image|Missing image|Image unavailable|spacer gif|Image of author|View post on Instagram|No caption available
Photo gallery image 7|Image result|Related image|Open image in gallery|Photo of product|Main image
Featured image for post|picture 3|Image 3 of 12|Placeholder|Default image|Thumbnail|Logo image|Image alt text
Slide 1 of 5|Header photo|No photo available|Picture coming soon|Profile image of user|blog image|Article header image
Gallery thumbnail 5|Product photo 3|author photo|Photo is loading|User image|Cover image|Additional image 2
Site banner|Blank placeholder image|Image 2|Photo 1 of 8|Slide image|Post featured image|Photo placeholder
Alt text for image|Default avatar image|Website logo|Hero image|Main photo 2|No image|Author avatar|Thumbnail 3
Article lead image|Image gallery thumbnail|Category image|Loading placeholder|Product thumbnail 4|Untitled photo
Photo unavailable|Company logo|Image without description|Team member photo|News image|Image of article|Photo 7
Picture 2 of 9|Image of the article|default user image|Article photo|Product image placeholder|Blog header image
No thumbnail|Photo of author|Loading image please wait|Image link|Featured post thumbnail|Image 4 of 6|Photo gallery 2
Profile picture of author|Cover photo for page|Page header image|Site logo image|Alternate text
Default thumbnail image|Photo slide 3|Featured image placeholder|User photo|No profile picture|Photo 12 of 30
Main image of article|Placeholder for image|Blank user avatar|Logo of website|Image thumbnail 2|Featured photo
Hero banner image|Missing photo|Default post image|Image of product|Article thumbnail image|Image 12|Default thumbnail
No image description|Header logo|Photo 4 of 10|Post image|Image placeholder 3|User profile picture
""",
    "machine": """
Image may contain: one or more people|May be an image of 2 people and text|May be an image of tree, sky and grass
Image may contain: sky, cloud, outdoor and nature|No photo description available.|may be a cartoon
May be art of flower|This image may contain Human, Person, and Face|Image may contain text that says 'Hello'
May be a black-and-white image of one person|Picture may contain: plant|Photo may contain: one person, smiling
May be an image of text|May be an image of dog|may be an illustration of bird|May be a selfie of one person
A picture containing text Description automatically generated|Description automatically generated
Description automatically generated with medium confidence|A picture containing outdoor, sky
Graphical user interface, text Description automatically generated|Diagram Description automatically generated
May be an image of one or more people and outdoors|Image may contain: food|May be an image of text that says 'SALE'
Image may contain: 1 person, sitting and indoor|No photo description available|Picture containing tree, outdoor
A picture containing text, sign|May be a closeup of flower|A close up of a logo Description automatically generated
Photo may contain one or more people|May be pop art of one person|May be an anime-style image
Chart, bar chart Description automatically generated|May be an image of sky and nature
May be an image of 3 people, people standing and outdoors|Image may contain: night and sky|May be an image of map
May be an image of outdoors and text|Image may contain: shoes|This photo may contain plant and flower
May be a meme of text|May be a graphic of text|A picture containing person, indoor
A screenshot of a cell phone Description automatically generated
A group of people posing for a photo Description automatically generated|Image may contain Building, City and Road
No photo description available yet|May be a doodle of text|Image may contain: cat and indoor
May be an image of food and indoor|May be an image of bird and nature|A picture containing sky, grass, outdoor
Text Description automatically generated|Image may contain: one or more people, crowd and outdoor
May be a black and white image of text|Photo may contain: sky
A white background with black text Description automatically generated|May be an image of 1 person, beard and text
May be an image of 1 person, child and grass|Image may contain: one or more people and shoes|Image may contain: text
May be a cartoon of text|May be an image of car and outdoors
A picture containing indoor, table Description automatically generated|Picture may contain one person
A close up of text on a white background Description automatically generated|May be an illustration
May be an image of 4 people and people smiling|Image may contain: bird, sky and outdoor|May be an image of dessert
Image may contain: plant, flower and nature
A picture containing person, outdoor, grass Description automatically generated|May be a Twitter screenshot of text
May contain: food|Image may contain Flower|May be an image of 1 person and standing|Image may contain: outdoor
May be an image of car and road|Image may contain dog, animal
A picture containing grass, outdoor Description automatically generated|May be a drawing of one person
""",
    "buttons": """
Add to cart|Buy now|Read more|Learn more|Sign in|Log in to view|Subscribe now|Share on Facebook|Share this on Twitter
Tweet this|Follow us on Instagram|Download now|Download this image|Click here|Click image to enlarge|View full size
View larger image|Next slide please|Previous image|Back to top|Skip to content|Close this window|Show more
Load more images|Add to favorites|Add to wish list|Save to Pinterest|Pin it|Email this to a friend|Print this page
Report this image|Like us on Facebook|Continue reading|Play video|Watch the video|Search results|Open in new window
See all photos|View gallery|Shop now|Sign up today|Free shipping on all orders|Book now|Contact us today|Get a quote
Join now|Leave a comment|Click to share|Enlarge this image|Roll over image to zoom in|Hover to zoom|Tap to unmute
Please log in to comment|Scroll down for more|Visit our website|Add to wishlist|View cart|Buy tickets|Share via email
Pin it on Pinterest|See all products|Log in with Facebook|Download for free|Start free trial|Get started
Request a quote|Find out more|Follow me on Twitter|Click the image for details|Tap to enlarge|Zoom in|Go to next page
Return to homepage|Subscribe to our newsletter|Continue to checkout|Read the full article|Leave a reply
Open in a new window|Search this site|Buy this print|View all photos|Download image|Share this article
Join us on Facebook|Add to favourites|Sign up for free|Register now|Apply online|Get directions|Call us now
Order online|Read the article|Watch trailer|Listen now|Load more|Show details|Close menu|Next photo|Go back to the top
Click to open|Click here for more photos|See full image|Enlarge photo|Book your tickets now|Learn more about us
Visit the shop|Check availability|Submit your review|Shop all|Sign in to comment|View more photos|Add to compare
Learn about us|Click for larger image|Watch now|Subscribe to newsletter|Download the app|Find a store near you
Read all reviews|Share with your friends|Add to shopping cart|Buy tickets now|Click on image to enlarge
Click photo to view larger|Download brochure|Read more about us|Follow us on Facebook|Share on Twitter
View on Instagram|Sign in or register|Get it now|Continue reading this article|Open menu|See all images
Subscribe for updates|Add item to cart|Read article|Click here to enlarge|View full image
Share on Facebook and Twitter|Sign up now|Order now|Start your free trial|Download the full report|Click to zoom in
See more details|Back to gallery|Add to basket|Read the full story|Share on Pinterest|Sign up for our newsletter
Click to view larger|Download PDF|See more photos|View details|Log in|Subscribe to our channel|Show all images
Back to homepage|Buy it now|Open image in new tab
""",
    "file names": """
IMG_2034.JPG|DSC_0043|DSCN1234.jpg|P1010203.JPG|100_2345|image001.png|Screenshot_20190405-101112|photo-1.jpeg
20160716_113957|FB_IMG_1500000000000|WhatsApp Image 2019-04-05 at 10.11.12|scan0003.tif|Untitled-1 copy|final_v2.png
header-bg.gif|MVC-003F|PICT0012.JPG|IMG 0012 copy|IMGP4321|DSCF0101.RAF|img_1234_edited-1|unnamed.jpg|download (3).jpg
tumblr_o1abcd2ef31qz4|GOPR0042.MP4|IMG_0099.jpeg|DSC00512|P8120034|image (12).png|Screen Shot 2018-05-01 at 14.22.10
20190822_183012.jpg|img-20190101-wa0003|scan 12.jpg|photo_2021-03-04_12-33-01|Untitled-2.jpg|DSC_1234 copy|CIMG0412
SDC10334|sam_0231|100_0456.jpg|banner_final_3.jpg|logo-small.png|dscn0012_edited|pic001|_MG_2231|DSCF3321.JPG
IMG_3847.CR2|P3040012.JPG|image-4.jpeg|20170704_090210(1).jpg|Screenshot (14)|WP_20150102_001|VID_20180101_123000
scan0012|Image0045|DSC09871-1|PANO_20141011_113322|IMAG0321|photo 4|photo.PNG|KIMG0123|DJI_0042|IMG-1234
received_1020304|tumblr_inline_abc123|IMG_E4521.JPG|DSC00123 (2)|P1050678_edited|20150612-143355.jpg|image-asset.jpeg
Screenshot 2021-01-05 at 10.10.10|IMG_20200101_120000_123|FullSizeRender.jpg|thumb_001.png|CIMG1234-small
""",
    "licences": """
CC BY 2.0|CC-BY-SA 3.0|Licensed under CC BY-NC 4.0|Creative Commons|Attribution 2.0 Generic|Public domain
Some rights reserved|All rights reserved|GNU Free Documentation License|GFDL|© Jo Doe|Copyright Jo Doe 2012|(c) 2011
No known copyright restrictions|Royalty free image|Rights-managed photo|Editorial use only|For editorial use only
Free for commercial use|Courtesy of the museum|This work is in the public domain in the United States
Permission granted by the author|Used with permission|Used under licence|Credit: Jo Doe / Example Agency|Photo: Jo Doe
Photo credit Jo Doe|Image courtesy of NASA|Source: Jo Doe|Photograph: Jo Doe/Agency|Reproduced with permission
Please credit the author|Do not copy|No commercial use|Free to use|Attribution-NonCommercial-ShareAlike|CC-BY 3.0
CC BY-NC-ND 2.0|Creative Commons BY-SA 4.0 licence|Licensed under the GFDL|This image is in the public domain
Copyright 2015 Mary Roe|© Mary Roe Photography|Courtesy of Mary Roe|Photo by Mary Roe / Example Press
Released under Creative Commons|No copyright|All rights reserved by Mary Roe|Image credit: Example Agency
Picture: Mary Roe|Royalty-free stock image|Free stock photo|Used under Creative Commons licence|Photograph by Mary Roe
Permission to use granted|Stock photo|Copyright holder: Mary Roe|Photo courtesy Mary Roe
Attribution-ShareAlike 4.0 International|Free for personal use|CC BY-SA 2.5 Generic|Creative Commons Zero
Public Domain Mark|Photo © Peter Poe|© 2010 Peter Poe, all rights reserved|Copyright Peter Poe|Image © Example Museum
Some rights reserved by peterpoe|Photo by Peter Poe, used with permission|Licensed under Creative Commons Attribution
Free to share|Rights reserved|Photographer: Peter Poe|Credit: Peter Poe|Photo courtesy of the Example Museum
Image via Example Press|Unrestricted use|Royalty free stock photography|GNU Free Documentation License 1.2
Not for commercial use|Watermarked preview|Please ask before using this photo|Copyrighted free use
With kind permission of the author|Creative Commons Attribution-ShareAlike 3.0 Unported|© Anna Foe
Image used under licence from Example Images|All content copyright Anna Foe|Public domain photograph
Photo credit: Anna Foe/Example|Courtesy Example Archive|Copyright protected|No rights reserved|Free stock image
CC-BY-4.0|Reprinted with permission|CC BY 4.0 International|Creative Commons licence|© Tom Woe 2018
Copyright © 2007 by Tom Woe|Photo by Tom Woe on Example|Photo: Tom Woe, Example News|Courtesy of Tom Woe
Image licensed under CC0|This photo is copyrighted|Royalty free photo|For personal use only
All images copyright of the owner|Creative Commons CC BY 2.0|© Liz Hoe. All rights reserved
Photo: Liz Hoe/Example Agency|Copyright: Liz Hoe|Used with the permission of the author|Courtesy: Liz Hoe
Licensed under CC BY-SA|Stock image|Image by Liz Hoe|CC0|Creative Commons Attribution 2.0|© 2019 Jane Doe
All rights reserved.|Image courtesy of Jane Doe|Used by permission|Photo by Jane Doe|GNU FDL|Public domain image
Rights reserved by the author
""",
}
REAL = """
Hindenburg disaster, 6 May 1937|D-Day landings, 6 June 1944|Kew Gardens, 3 May 2010
A barn near the river, 12 July 2009|Market square on 5 May 1945|Flooded street in June 2013
Solar eclipse of 11 August 1999|Total eclipse, March 2006|Opening day, 4 July 1976|The crowd on New Year's Eve 1999
Paris, 14 July 1919|Carnival in Venice, February 2012|Snow in London, 2 February 2009|Election poster, September 1932
Ship launching on 12 August 1911|Wedding of Ann and Tom, 4 June 2011|Sunset on 3 May over the bay
Front page of 7 May 1915|Man taking a photograph of a bridge|Woman with a camera in front of the mirror
A photographer at work|An old Canon camera on a wooden table|Leica camera in a museum|Nikon lens on a shelf
Film camera and a roll of film|Kodak building in Rochester|Polaroid of a birthday party|A Hasselblad on the moon
Child looking at a camera|Photo booth at the fair|Photo of a red fox in the snow
Photograph of a steam engine in a shed|Picture of a cat sleeping on a chair|Image of a saint above the church door
Image of the moon by night|A painting by Jane Doe in the town hall|Portrait by an unknown painter
Photo by a window in the evening|Book by John Smith on a shelf|Woman clicks on a computer mouse
Child pressing a button in a lift|Shop window with a sale sign|People waiting to buy tickets|A sign that says buy now
Reading more books in the library|Two boys share an ice cream|Man downloading a file at a desk
Close-up of a door with a sign|View of the gallery from the stairs|View of the harbour in the morning
Large view of the valley in autumn|Visitors in the gallery of modern art
People in line for free shipping containers at the port|A search party on the hill|Next train at the station platform
Previous church of the village, before the fire|Back of the house with a garden|A log in the forest
Sign at the entrance of the park|Postcard of the old bridge, sent in 1910|Letter sent from the front
Email printed on paper|Public library in the evening light|Public garden with fountain
Domain of the dukes seen from above|Free dogs on the beach|Museum of copyright history in a small town
Statue holding a licence plate|Creative workshop with common tools|Common blackbird on a fence
A stock of wood beside the house|Stock exchange building in winter|Royalty arriving at the opera
Premium coffee beans in a bag|Cover of a book about trains|Background of mountains behind a lake
Banner over the main street|Header of a stone wall|Logo painted on a bus|Avatar poster at a cinema
A profile of a woman's face|Profile view of an old car|Slide in a playground|Slide 3 metres high in a water park
Item 12 of the collection: a bronze bowl|Figure of a dancer in white marble|Figure 3: the engine and its parts
Page of an old manuscript|Screenshot of a game with a dragon|A file cabinet in an office|Pictures of flowers on a wall
Photos on a fridge door|Made by hand in a small pottery|A cake made by my mother|Basket made of willow by a craftsman
Own garden with roses and a bench|Working men on a bridge|A selfie with an elephant|A cartoon of two mice
An illustration of a bird in a tree|Text on a stone above the gate|Diagram of the parts of a flower
Map that shows the roads in 1750|Sky and cloud above a field|Tree, sky and grass in a park|Automatic doors of a hotel
A tripod on a hill at sunset|Window of a car in the rain|Flash of lightning over the sea|Long exposure of star trails
A quick shot of the goalkeeper|Shot tower beside the river|Shot glasses on a bar|Pot shot by a cannon in 1812
Capture of the fort in 1759|The castle was captured on 3 May 1648|The bridge was created in 1890 by an engineer
Ship posted to the north sea in 1940|Film premiere in Cannes, May 2010|Snapshot of village life in the 1950s
Scan of a brain with a tumour|Scanned page of a medieval book|Pano of the whole valley from the tower
Courtesy bus in front of a hotel|Credit card on a table|Source of the river Thames|Author signing a book
Photographer taking pictures of a bride|The 50mm gun of a tank|A 35 mm film roll on a table|ISO container ship in port
Macro of a bee on a flower|Zoom lens beside a laptop|Untitled painting of a red square on white
Default house in a game of cards|Missing dog found in the park|Broken window of an old factory
Featured artist on the stage|Main street with shops and trams|Hero of the war on a horse|Product of a local farm
Blog writer at a cafe|Please keep off the grass sign|Best friends on a beach|Best view from the summit of the mountain
Please do not feed the birds, a sign says|Battle of the Somme, 1 July 1916|Fall of the wall, 10 November 1989
Moon landing, 20 July 1969|Eruption of 18 May 1980|Christmas market, 8 December 2012|Royal visit on 4 May 1967
Sunrise over the bay, 1 January 2000|Tornado damage in April 1974|Students at graduation, June 2015
The first train arrived on 27 September 1825|Coronation, 2 June 1953|A storm on 9 November 2013|Canon at the old fort
Nikon store in Berlin|A woman takes a picture of a waterfall|Photographer with tripod at the lake
Vintage Kodak advertisement|Camera shop in a narrow street|Tourists with cameras|Box of old photographs
Phone booth in the snow|iPhone on a wooden desk|Drone flying over a vineyard|Man holding a Leica
Film poster of a silent movie|Old lens on a tripod in a studio|Iso bottles in a cellar
A flash of light above the hills|Exposure of limestone on the coast|Flowers at f sharp music hall
Shutters of a blue house|Shutter speed painted as graffiti on a wall|Handmade quilt by my grandmother
Bread made with rye flour|House made of straw|Cabin built by the author of the novel|Self-made man statue in the park
Work of art in a garden|Own brand of soap in a shop|Image of Buddha on a cliff|Picture of a boat painted on a plate
Thumbnail sketches of a horse|Header of the football by the striker|Placeholder stones in a graveyard
Main street in winter|Cover band on stage|Logo of the railway company on a wagon|Slide show in a village hall
Product of the local pottery|Default gateway of the castle|Gallery of a Baroque church|Profile of a mountain at dusk
User of a wheelchair on a ramp|Shop now open in the harbour|Buying fruit at the market|Readers in a library
Next to the church|Share of the harvest in a barn|Follow the leader game in a school yard|Watch on a wrist
Play by children in a school|Sign of the inn|Download of cargo at a pier|Search dogs in the snow
Press photographers at the gate|Print of a whale|Print shop in the old town|Click beetle on a leaf
Zoom of the moon's craters|Open air concert at night|Subscribe box on a wall|Public domain sculpture garden entrance
Licence plate of a vintage car|Courtesy call of the ambassador to the mayor|Credit union building
Royalty at the wedding|Stock car race on a dirt track|Free range hens on a farm|Rights march in the capital, 1963
Reserved seats in a theatre|Creative Commons office door|Permission slip on a desk|Commercial street in the evening
Attribution of the painting is uncertain, oil on canvas|May trees in bloom|Image may be upside down in the pond
A picture containing frame makers' shop in London|Text on a tombstone|Chart of the bay from 1790
People and sky reflected in a window|A selfie on the summit of a mountain|Scanner at an airport
Scanning electron microscope image of pollen|Scan of a letter from 1890|Negative of a glass plate with a ship
Print from a woodblock|Slide of onion cells under a microscope|Edited volume on a shelf|Uploaded cargo on a donkey
Posted guards at the palace|Sent home after the battle|Shared garden behind the flats
Published works of the poet on a table|Pinned butterfly in a case|Last photo of the ship before it sank
No dogs allowed sign|Taken from the tower, the whole town lies in the valley
Photographed from the air: the new stadium|Taken aback, the king leaves the hall|The fort taken by the rebels in 1798
Shot put at the Olympic Games|Shot down plane in a field|Captured soldiers march along a road
Liberation of Paris, 25 August 1944|Earthquake damage, 18 April 1906|Lunar eclipse, 28 September 2015
Inauguration day, 20 January 1961|Flood of 16 July 1965 in the valley|The dam on 3 October 1950|Christmas dinner 1978
Summer evening in the harbour|Boats at dawn|A winter day in the park|Sunday morning market|The last tram, 4 July 1962
Easter parade, 1913|A man with a smartphone at the bus stop|Woman filming a concert with her phone
Photographer with a telephoto lens at a football match|Nikon factory in 1965|Display of old cameras
Webcam on top of a monitor|Tripod of a telescope|A flash flood|Solar flare captured by a satellite
The ship was captured in 1804|Captured flag in a museum|Lens of a lighthouse|A roll of negatives|Slide rule on a desk
Double exposure portrait of a woman|Long exposure of traffic|Portrait of the author at his desk
The author with his wife|Self portrait in a mirror|Own goal in the final|A user manual for a radio
Author and illustrator at a book fair|A photo of my mother in 1950|Main building of the university
Header tank on a roof|Banner of the guild|Logo on the wall of the office|Cover of a book of poems
Background radiation map of the sky|Image stabiliser inside a lens barrel|Profile of the volcano from the sea
Missing poster on a tree|Description of the route on a wooden board|Title page of the first edition
Caption competition at a fair|Product of the volcano|Loading coal at the dock|A default judgement in court
Close up of a coin|Open book on a table|View of the site|View from the back|Show at the theatre|Sign in the window
Play in the park|Book of hours|Order of service|Watch tower at night|Buy and sell shop in the old town
Search party in the woods|Share cropper family|Next of kin at the grave|Press at the winery|Print by a Japanese master
Report card from 1920|Check shirt on a hanger|Save the whales poster|Follow the river path
Register office in the town hall|Return of the army|Start of the marathon|Read thread embroidery|Visit of the pope
Public house in the village|Domain of the king|Permission to land, a sign on a pier|Licence holder of the inn
Rights of way map|Stock dove on a branch|Credit note from 1890|Royalty in a carriage|Courtesy of the knights
Attribution error in the museum|Free house pub|Common use path|A picture containing box made of wood|May queen crowned
May be the oldest house in town|Image of a saint containing relics|Text messages on a phone|Chart of the winds
Cartoon of a politician|Tree and sky|Made in the workshop of the duke|Created for the exhibition
Recorded in a studio in London|Processed cheese on a plate|Edited by a monk|Cropped wheat field
Mapped by a surveyor in 1850|Printed in Venice in 1499|Posted at the gate|Sent by train to the front
Fall of Saigon, 30 April 1975|Total solar eclipse, 21 August 2017|Sunken ship, 14 April 1912
Market in the rain, 6 October 2018|Students protest on 15 May 1968|Kite festival in January 2014
The first snow of winter|A foggy morning in the valley|Night in the old harbour|Birthday cake with ten candles
Christmas tree in a square|Camera on a tripod in a garden|Boy with a toy camera|Film director on a set
Phone box in London|An old slide projector|Lens flare over a road|Shot of the skyline|A flash of colour in the garden
The author signs her novel|Portrait of the artist as a young man|Uploader robot in a warehouse|Work in the fields
File of soldiers|User of a loom|Placeholder statue of a king|Team photo of 1920 in front of the stadium
Category winner with a cup|Group of people at a table|News stand in Paris|Store front with flowers
Play in three acts on a stage|View in the Alps|Open door in a wall|Book in a shop window|Watch in a glass case
Search for gold|Return from the hunt|Order of the garter|Visit to the farm|Check of the brakes|Sign by the road
Free kick in a football match|Copyright office building|Stock of wine in a cellar|Rights activist at a rally
Permission slip for a trip|Zero mark on a ruler|Made of glass and steel|Created by fire and wind, the canyon
Printed cotton dress|Developed leaf of a fern|Moved house on a truck|Recorded music shop|Shared taxi in Lima
Sent to the front in 1915|Text on a banner|Picture of a cat on a mug|May pole dance|Image in the mirror
A map of the text of a song|Photo of my grandparents, 1948|Photographs of the moon|Pictures of the flood
Treaty signing, 28 June 1919|Avalanche on 10 May 1999|Apollo launch, 16 July 1969|The old bridge, 9 November 1993
Rose garden in June 2017|Marathon, 21 April 2013|Blizzard of January 1978|Summer night on the lake
Morning mist over a field|Christmas lights on a house|A week of rain|The first day of school|Sunday lunch with family
New year's fireworks above the river|Photographer on a ladder|A camera obscura on a hill|Tripod bowl from Greece
Mobile crane at the docks|Phone box beside a church|Filter of a coffee machine|Film set in the desert
Flash in the sky above a barn|Drone bee on a flower|Print of a fox in the snow|Author of the play with actors
Own farm of the family|Upload station of a probe|Self-made raft on a river|Bot fly on a cow
Commons in autumn with sheep|Source of a stream in the hills|Post office in a village|Featured dancer of the evening
Default position of the lever|Thumb of a statue|Banner carried by miners|Team on a podium|Group of trees on a hill
Store of grain|News vendor at a corner|Placeholder name on a grave|View over the roofs|View in the forest
Show jumping at the fair|Play with masks|Sign above an inn|Watch with a leather strap|Search and rescue helicopter
Book with a red cover|Order of monks in a procession|Open sea near the cape|Read by candle light|Cart and horse
Map of the right bank|Licence to print money, a cartoon|Copyright lawyer at a desk|Rights of man, a painting
Public domain road sign|Permission granted by the king in 1212|Credit bank in Vienna
Courtesy of a knight to a lady, engraving|Stock car at a track|Free church in a valley|Commercial break dance
Image of a goddess containing gold|May bells in a wood|Could be the oldest tree here|Text in stone
People and dogs on a beach|Illustration of a whale|Screenshot of a map of the town|Created in bronze by a sculptor
Recorded landslides on a map|Edited film reels|Posted letter from 1870|Shared roof of two barns|Moved by oxen, a stone
Developed harbour of the port|Processed tobacco in a shed|Siege of Vienna, 12 September 1683|Comet on 4 April 1997
Strike at the docks, 3 May 1926|Carnival, 13 February 2018|School photo from 1932 with 30 children
Harvest in August 1950|A cold morning at the station|Holiday crowds on the pier|Birthday party in a garden
Moon over the bay at midnight|A night train|Afternoon tea in a hotel|A man tests a lens|Camera hidden in a book
Film stars at a premiere|An old photo album on a table|Zoom on the crater|Scanner in a hospital
Woman with a selfie stick|The author of the book in Rome|Uploading pump at a farm|Own brand of tea|A file of ants
Source of the Danube|Logo on a bus|Banner in a stadium|The main gate|A featured guest on stage|Thumbnail of a giant
Missing tooth of a boy|A slide in the park|Watch the birds, a sign at the lake|Open gate in a field
View of Mount Etna from a boat|Search lights in the sky|A book on a chair|Print of a leaf|Return of the heron
Shop in Lisbon|Order of the rooms in the palace|Royal stock of sheep|Free kitten in a basket
Copyright notice on a wall in Rome|Rights issue debate in a hall|A licence plate from Ohio|Text of the law on a column
May pole in a village|A picture of a horse|Image of Saint George|Diagram of a heart|Posted sentries in the rain
Created by ice, the lake lies deep|Recorded dances from Peru|A shared room|Edited scores of the composer
Sinking of the Lusitania, 7 May 1915|Berlin, 9 November 1989|Village fair, 15 August 1962
Fire at the mill on 3 April 1911|Snowdrops, 4 March 2012|The queen opens the dam, 21 May 1956
A digital clock on the wall|Camera crew at the finish line|Old phone on a desk|Photograph of my aunt at the lake
Man reading a newspaper in the park|Sign on a shop door that says closed|Woman opens a window in the kitchen
Boy shows his new shoes|Shopping cart in an empty car park|Cover of the first issue of the magazine
Public square with a fountain|Author reading from her new book|A mobile of paper birds above a cradle
Nikon headquarters in Tokyo at night|Print of a whale on paper|Image of a lion carved in stone
Download festival crowd in the rain|Add water to the flour and stir|People follow the band through the town
Pin on a map of the city|Free climber on a granite wall|Copyright page of an old book|Stock of a hunting rifle
Slide show in a lecture hall|Uploading bay of a factory|A page from the diary of a sailor
Sheep taken to the market in 1920|The fort was taken in 1812 after a siege|Shot of whisky on a bar
Close view of a moth|Portrait taken in a studio of a family of five|Flash flood in the desert|Aperture of a sea cave
Exposure of rock layers in a cliff
"""

LATER = {
    "dates": """
Photographed on 7 June 1989|Photo from around 1930|Taken on the afternoon of May 3, 2015|Captured at noon in July
Uploaded a year ago|Image from 24 December 2010|Picture taken in winter 2001|Shot at 6.30 pm on a Friday
Scanned 14 June 2013|Photo date: spring 1976
""",
    "cameras": """
Canon EOS 80D EF-S 18-135mm|Nikon D70s|Sony A77 16-50mm f/2.8|Fujifilm FinePix HS20|Olympus SP-590UZ
Pentax K-5 with 18-135 WR|Minolta X-300, Ilford HP5 Plus|Panasonic DMC-TZ30|Canon AE-1 Program, Fuji C200
Huawei Mate 20
""",
    "exposure": """
ISO 100, f/9, 1/200|1/3200 sec, f/2.8, 200 mm|Exposure 1/125, aperture f/8, ISO 100|HDR from 7 images|Shutter 1/30
Aperture: f/1.4, ISO: 1600|20 min exposure, f/4|EXIF data: ISO 50|Flash off, ISO 800|Focal length 50mm, exposure 1/60
""",
    "taken with": """
Taken with my little camera|Captured on a GoPro|Shot with macro lens and flash|Photo taken from my mobile
Edited with GIMP|Scanned from negative film|Taken with the iPhone camera|Posted via Instagram|Made in Photoshop CC
Recorded with my phone
""",
    "commons": """
Own work, photographed by me|Photo by uploader in 2012|Made by the author|Uploaded by original author
Transferred from Wikipedia to Commons|The author's own work|Picture by the uploader|Self-made drawing
Drawing by the uploader|See page for author
""",
    "alt text": """
Photo 3 of 15|Image of blog post|Product placeholder|Author image|Gallery photo|Image 9|Thumbnail of image
Page banner image|Untitled image 3|Avatar of user
""",
    "machine": """
May be an image of 2 people, beard and hat|Image may contain: tree and outdoor|A picture containing food, plate
May be an image of shoes|Image may contain: sky and text|Timeline Description automatically generated
May be an image of furniture|Photo may contain dog
""",
    "buttons": """
Add to your wishlist|Learn more here|Download this photo for free|Share on WhatsApp|View product details
Log in to your account|Click to play video|Shop the collection|Read more posts|Next page of results|Register for free
Contact the seller
""",
    "licences": """
CC-BY-SA 4.0 International|Creative Commons Attribution License|Copyright 2020 Kim Loe|© Kim Loe / Example
Photo courtesy of Kim Loe|Used with kind permission of Kim Loe|Image in the public domain|All rights are reserved
Free to use image|Credit Kim Loe
""",
}
LATER_REAL = """
Sack of Rome, 6 May 1527|Tsunami of 26 December 2004|Tulips, 2 April 2011|Concert on 5 July 1985
Snow in the garden, January 2010|Graduation, 12 June 1964|Evening at the pier|A summer storm|Winter sports in the Alps
The year of the dragon parade|Late roses in a garden|Night watch on a ship|The lens of an eye|Camera shop window
A phone on a cable|Kodak advertisement on a wall|A scanner at the airport|Tripod in a swamp|A flash mob in the square
Author at a typewriter|Own harvest of apples|Uploader arm of a machine|A file cabinet|Source of the Nile
Image of a bull on a vase|Thumbnail sketch of a church|Featured cheese on a board|Logo of the mill
Header beam of a barn|Page boy at a wedding|Watch the step, a sign|Sign of the times painted on a wall
View down the valley|Book of maps|Play of light on water|Search for survivors|Order of battle|Share of the catch
Report from the front line|Shop keeper at the counter|Print workshop in Berlin|Free climbing on a cliff
Rights of passage in a village|Royal licence for a fair|Public domain, a statue of law
Courtesy of the court, a painting|Copyright symbol drawn in sand|Stock of firewood
May be seen from the road: the tower|Text carved above a door|A picture of the harbour|Map of the old walls
Cartoon of a fox|Posted on a wall, an old advert|Edited by hand, a score|Created at the court of the duke
Sent from Genoa, a bale of silk|Shared table in an inn|Recorded by a monk, the eclipse of 1133
"""


def texts_of(block: str) -> list[str]:
    return [text.strip() for line in block.strip().splitlines() for text in line.split("|") if text.strip()]
